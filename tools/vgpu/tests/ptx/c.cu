#include <stdint.h>
#include <cooperative_groups.h>
namespace cg=cooperative_groups;
__device__ __forceinline__ void put(float*p,unsigned rank,float v){ uint32_t a=(uint32_t)__cvta_generic_to_shared(p),r; asm("mapa.shared::cluster.u32 %0, %1, %2;":"=r"(r):"r"(a),"r"(rank)); asm volatile("st.shared::cluster.f32 [%0], %1;"::"r"(r),"f"(v):"memory"); }
__device__ __forceinline__ void csync(){ asm volatile("barrier.cluster.arrive.release.aligned;\n barrier.cluster.wait.acquire.aligned;":::"memory"); }
// Each block of a cluster of 16 has a value for each of its 64 threads; each round it sends them to all others, and
// takes the sum of what came.
extern "C" __global__ void rounds(const float*x,float*out,int rounds){
  __shared__ float in[2][16][64]; unsigned rank; asm("mov.u32 %0, %%cluster_ctarank;":"=r"(rank));
  int t=threadIdx.x; float v=x[blockIdx.x*64+t]; csync();
  for(int r=0;r<rounds;r++){ for(int k=0;k<16;k++) put(&in[r&1][rank][t],k,v); csync(); v=0; for(int k=0;k<16;k++) v=v*0.5f+in[r&1][k][t]; }
  out[blockIdx.x*64+t]=v; csync(); }
extern "C" __global__ void __cluster_dims__(4,1,1) groups(int*out){
  __shared__ int s[32]; cg::cluster_group c=cg::this_cluster(); unsigned n=c.num_blocks(), me=c.block_rank();
  s[threadIdx.x]=me*100+threadIdx.x; c.sync();
  int*other=c.map_shared_rank(s,(me+1)%n); int v=other[threadIdx.x]; c.sync();
  atomicAdd(c.map_shared_rank(s,0)+threadIdx.x,1000); c.sync();
  out[blockIdx.x*32+threadIdx.x]=v+s[threadIdx.x]*10000+c.query_shared_rank(other); c.sync(); }
__device__ __forceinline__ uint32_t at(const void*p,unsigned rank){ uint32_t r; asm("mapa.shared::cluster.u32 %0, %1, %2;":"=r"(r):"r"((uint32_t)__cvta_generic_to_shared(p)),"r"(rank)); return r; }
// The same by st.async: warp 0 sends each of its 64 values (two for each lane) to all 16 blocks; two barriers in turn.
extern "C" __global__ void sends(const float*x,float*out,int rounds){
  __shared__ __align__(16) float in[2][16][64]; __shared__ __align__(8) uint64_t full[2]; unsigned rank; asm("mov.u32 %0, %%cluster_ctarank;":"=r"(rank));
  int t=threadIdx.x; float v=x[blockIdx.x*64+t]; __shared__ float own[64];
  if(t==0){ for(int k=0;k<2;k++) asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;"::"r"((uint32_t)__cvta_generic_to_shared(&full[k])):"memory"); asm volatile("fence.mbarrier_init.release.cluster;":::"memory"); }
  csync();
  for(int r=0;r<rounds;r++){ uint32_t bar=(uint32_t)__cvta_generic_to_shared(&full[r&1]);
    own[t]=v; if(t==0) asm volatile("{.reg .b64 s; mbarrier.arrive.expect_tx.shared::cta.b64 s, [%0], %1;}"::"r"(bar),"r"(16*64*4):"memory");
    __syncthreads();
    if(t<32){ float a=own[2*t],b=own[2*t+1]; for(int k=0;k<16;k++) asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];"::"r"(at(&in[r&1][rank][2*t],k)),"f"(a),"f"(b),"r"(at(&full[r&1],k)):"memory"); }
    uint32_t ok; do{ asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0,1,0,p;}":"=r"(ok):"r"(bar),"r"(r>>1&1):"memory"); }while(!ok);
    v=0; for(int k=0;k<16;k++) v=v*0.5f+in[r&1][k][t]; }
  out[blockIdx.x*64+t]=v; csync(); }
