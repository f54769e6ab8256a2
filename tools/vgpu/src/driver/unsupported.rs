//! What the driver's interface has and this driver does not.
//!
//! The idea: every name is there, so that whatever a program links against is found, and the first call of
//! one says which it was.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::error::Code;

static TOLD: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

fn refuse(name: &'static str) -> u32 {
    if TOLD.lock().unwrap_or_else(|e| e.into_inner()).insert(name) {
        eprintln!("vgpu: {name} is not supported");
    }
    Code::NOT_SUPPORTED.0
}

macro_rules! unsupported {
    ($($name:ident),* $(,)?) => {
        $(
            /// Not supported.
            #[unsafe(no_mangle)]
            pub extern "C" fn $name() -> u32 {
                refuse(stringify!($name))
            }
        )*
    };
}

#[rustfmt::skip]
unsupported! {
    cuArray3DCreate_v2, cuArray3DGetDescriptor_v2, cuArrayCreate_v2, cuArrayDestroy,
    cuArrayGetDescriptor_v2, cuArrayGetPlane, cuArrayGetSparseProperties, cuCtxAttach, cuCtxCreate_v2,
    cuCtxCreate_v3, cuCtxDestroy_v2, cuCtxDetach, cuCtxDisablePeerAccess, cuCtxEnablePeerAccess,
    cuCtxGetCacheConfig, cuCtxGetExecAffinity, cuCtxGetFlags, cuCtxGetSharedMemConfig,
    cuCtxResetPersistingL2Cache, cuCtxSetCacheConfig, cuCtxSetLimit, cuCtxSetSharedMemConfig,
    cuDestroyExternalMemory, cuDestroyExternalSemaphore, cuDeviceCanAccessPeer, cuDeviceComputeCapability,
    cuDeviceGetByPCIBusId, cuDeviceGetDefaultMemPool, cuDeviceGetExecAffinitySupport,
    cuDeviceGetGraphMemAttribute, cuDeviceGetLuid, cuDeviceGetMemPool, cuDeviceGetNvSciSyncAttributes,
    cuDeviceGetP2PAttribute, cuDeviceGetPCIBusId, cuDeviceGetProperties, cuDeviceGetTexture1DLinearMaxWidth,
    cuDeviceGetUuid_v2, cuDeviceGraphMemTrim, cuDevicePrimaryCtxGetState, cuDevicePrimaryCtxReset_v2,
    cuDeviceSetGraphMemAttribute, cuDeviceSetMemPool, cuEventRecordWithFlags,
    cuExternalMemoryGetMappedBuffer, cuExternalMemoryGetMappedMipmappedArray, cuFlushGPUDirectRDMAWrites,
    cuFuncGetModule, cuFuncSetBlockShape, cuFuncSetSharedMemConfig, cuFuncSetSharedSize, cuGetExportTable,
    cuGetProcAddress, cuGraphAddChildGraphNode, cuGraphAddDependencies, cuGraphAddEmptyNode,
    cuGraphAddEventRecordNode, cuGraphAddEventWaitNode, cuGraphAddExternalSemaphoresSignalNode,
    cuGraphAddExternalSemaphoresWaitNode, cuGraphAddHostNode, cuGraphAddKernelNode, cuGraphAddMemAllocNode,
    cuGraphAddMemFreeNode, cuGraphAddMemcpyNode, cuGraphAddMemsetNode, cuGraphChildGraphNodeGetGraph,
    cuGraphClone, cuGraphCreate, cuGraphDebugDotPrint, cuGraphDestroyNode, cuGraphEventRecordNodeGetEvent,
    cuGraphEventRecordNodeSetEvent, cuGraphEventWaitNodeGetEvent, cuGraphEventWaitNodeSetEvent,
    cuGraphExecChildGraphNodeSetParams, cuGraphExecEventRecordNodeSetEvent,
    cuGraphExecEventWaitNodeSetEvent, cuGraphExecExternalSemaphoresSignalNodeSetParams,
    cuGraphExecExternalSemaphoresWaitNodeSetParams, cuGraphExecHostNodeSetParams,
    cuGraphExecKernelNodeSetParams, cuGraphExecMemcpyNodeSetParams, cuGraphExecMemsetNodeSetParams,
    cuGraphExecUpdate, cuGraphExternalSemaphoresSignalNodeGetParams,
    cuGraphExternalSemaphoresSignalNodeSetParams, cuGraphExternalSemaphoresWaitNodeGetParams,
    cuGraphExternalSemaphoresWaitNodeSetParams, cuGraphGetEdges, cuGraphGetRootNodes,
    cuGraphHostNodeGetParams, cuGraphHostNodeSetParams, cuGraphKernelNodeCopyAttributes,
    cuGraphKernelNodeGetAttribute, cuGraphKernelNodeGetParams, cuGraphKernelNodeSetAttribute,
    cuGraphKernelNodeSetParams, cuGraphMemAllocNodeGetParams, cuGraphMemFreeNodeGetParams,
    cuGraphMemcpyNodeGetParams, cuGraphMemcpyNodeSetParams, cuGraphMemsetNodeGetParams,
    cuGraphMemsetNodeSetParams, cuGraphNodeFindInClone, cuGraphNodeGetDependencies,
    cuGraphNodeGetDependentNodes, cuGraphNodeGetType, cuGraphReleaseUserObject, cuGraphRemoveDependencies,
    cuGraphRetainUserObject, cuGraphUpload, cuGraphicsMapResources,
    cuGraphicsResourceGetMappedMipmappedArray, cuGraphicsResourceGetMappedPointer_v2,
    cuGraphicsResourceSetMapFlags_v2, cuGraphicsSubResourceGetMappedArray, cuGraphicsUnmapResources,
    cuGraphicsUnregisterResource, cuImportExternalMemory, cuImportExternalSemaphore, cuIpcCloseMemHandle,
    cuIpcGetEventHandle, cuIpcGetMemHandle, cuIpcOpenEventHandle, cuIpcOpenMemHandle_v2, cuLaunch,
    cuLaunchCooperativeKernelMultiDevice, cuLaunchGrid, cuLaunchGridAsync, cuLaunchHostFunc,
    cuLinkAddData_v2, cuLinkAddFile_v2, cuLinkComplete, cuLinkCreate_v2, cuLinkDestroy, cuMemAddressFree,
    cuMemAddressReserve, cuMemAdvise, cuMemAllocAsync, cuMemAllocFromPoolAsync, cuMemAllocManaged,
    cuMemAllocPitch_v2, cuMemCreate, cuMemExportToShareableHandle, cuMemFreeAsync, cuMemGetAccess,
    cuMemGetAddressRange_v2, cuMemGetAllocationGranularity, cuMemGetAllocationPropertiesFromHandle,
    cuMemHostGetDevicePointer_v2, cuMemHostGetFlags, cuMemHostRegister_v2, cuMemHostUnregister,
    cuMemImportFromShareableHandle, cuMemMap, cuMemMapArrayAsync, cuMemPoolCreate, cuMemPoolDestroy,
    cuMemPoolExportPointer, cuMemPoolExportToShareableHandle, cuMemPoolGetAccess, cuMemPoolGetAttribute,
    cuMemPoolImportFromShareableHandle, cuMemPoolImportPointer, cuMemPoolSetAccess, cuMemPoolSetAttribute,
    cuMemPoolTrimTo, cuMemPrefetchAsync, cuMemRangeGetAttribute, cuMemRangeGetAttributes, cuMemRelease,
    cuMemRetainAllocationHandle, cuMemSetAccess, cuMemUnmap, cuMemcpy, cuMemcpy2DAsync_v2,
    cuMemcpy2DUnaligned_v2, cuMemcpy2D_v2, cuMemcpy3DAsync_v2, cuMemcpy3DPeer, cuMemcpy3DPeerAsync,
    cuMemcpy3D_v2, cuMemcpyAsync, cuMemcpyAtoA_v2, cuMemcpyAtoD_v2, cuMemcpyAtoHAsync_v2, cuMemcpyAtoH_v2,
    cuMemcpyDtoA_v2, cuMemcpyHtoAAsync_v2, cuMemcpyHtoA_v2, cuMemcpyPeer, cuMemcpyPeerAsync,
    cuMemsetD2D16Async, cuMemsetD2D16_v2, cuMemsetD2D32Async, cuMemsetD2D32_v2, cuMemsetD2D8Async,
    cuMemsetD2D8_v2, cuMipmappedArrayCreate, cuMipmappedArrayDestroy, cuMipmappedArrayGetLevel,
    cuMipmappedArrayGetSparseProperties, cuModuleGetSurfRef, cuModuleGetTexRef, cuModuleLoad,
    cuModuleLoadFatBinary, cuOccupancyAvailableDynamicSMemPerBlock,
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, cuOccupancyMaxPotentialBlockSize,
    cuOccupancyMaxPotentialBlockSizeWithFlags, cuParamSetSize, cuParamSetTexRef, cuParamSetf, cuParamSeti,
    cuParamSetv, cuPointerGetAttribute, cuPointerGetAttributes, cuPointerSetAttribute, cuProfilerInitialize,
    cuProfilerStart, cuProfilerStop, cuSignalExternalSemaphoresAsync, cuStreamAddCallback,
    cuStreamAttachMemAsync, cuStreamBatchMemOp, cuStreamCopyAttributes, cuStreamGetAttribute,
    cuStreamGetCaptureInfo, cuStreamGetCaptureInfo_v2, cuStreamGetCtx, cuStreamSetAttribute,
    cuStreamUpdateCaptureDependencies, cuStreamWaitValue32, cuStreamWaitValue64, cuStreamWriteValue32,
    cuStreamWriteValue64, cuSurfObjectCreate, cuSurfObjectDestroy, cuSurfObjectGetResourceDesc,
    cuSurfRefGetArray, cuSurfRefSetArray, cuTexObjectCreate, cuTexObjectDestroy, cuTexObjectGetResourceDesc,
    cuTexObjectGetResourceViewDesc, cuTexObjectGetTextureDesc, cuTexRefCreate, cuTexRefDestroy,
    cuTexRefGetAddressMode, cuTexRefGetAddress_v2, cuTexRefGetArray, cuTexRefGetBorderColor,
    cuTexRefGetFilterMode, cuTexRefGetFlags, cuTexRefGetFormat, cuTexRefGetMaxAnisotropy,
    cuTexRefGetMipmapFilterMode, cuTexRefGetMipmapLevelBias, cuTexRefGetMipmapLevelClamp,
    cuTexRefGetMipmappedArray, cuTexRefSetAddress2D_v3, cuTexRefSetAddressMode, cuTexRefSetAddress_v2,
    cuTexRefSetArray, cuTexRefSetBorderColor, cuTexRefSetFilterMode, cuTexRefSetFlags, cuTexRefSetFormat,
    cuTexRefSetMaxAnisotropy, cuTexRefSetMipmapFilterMode, cuTexRefSetMipmapLevelBias,
    cuTexRefSetMipmapLevelClamp, cuTexRefSetMipmappedArray, cuThreadExchangeStreamCaptureMode,
    cuUserObjectCreate, cuUserObjectRelease, cuUserObjectRetain, cuWaitExternalSemaphoresAsync,
}
