#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <cooperative_groups.h>
#include <cuda_pipeline.h>
#include <stdio.h>
#include <assert.h>
namespace cg=cooperative_groups;
__constant__ float tab[16]={1,2,3,4}; __device__ int counter=5; __device__ float big[100]; __device__ float* ptr=big;
extern "C" __global__ void glob(float*a){int i=threadIdx.x; a[i]=tab[i&15]+ptr[i]+atomicAdd(&counter,1);}
extern "C" __global__ void atoms(int*a,unsigned*u,unsigned long long*l,float*f,double*d){
 atomicAdd(a,1);atomicMin(a+1,threadIdx.x);atomicMax(a+2,threadIdx.x);atomicAnd(a+3,~threadIdx.x);atomicOr(a+4,threadIdx.x);atomicXor(a+5,threadIdx.x);a[100+threadIdx.x]=atomicExch(a+6,threadIdx.x);a[200+threadIdx.x]=atomicCAS(a+7,5,6);
 atomicInc(u,10);atomicDec(u+1,10);atomicAdd(l,3ull);atomicMax(l+1,5ull);atomicCAS(l+2,1ull,2ull);atomicExch(l+3,8ull);atomicAdd(f,1.5f);atomicAdd(d,2.5);f[100+threadIdx.x]=atomicAdd(f+1,1.f);
 __shared__ int s; if(threadIdx.x==0)s=0;__syncthreads();atomicAdd(&s,2);__syncthreads();if(threadIdx.x==0)a[300]=s; u[50+threadIdx.x]=atomicSub(a+8,1);}
extern "C" __global__ void votes(unsigned*o){int i=threadIdx.x;unsigned m=__activemask();o[i]=__ballot_sync(m,i%3==0)+__any_sync(m,i>3)+__all_sync(m,i<40)+__shfl_sync(m,i,5)+__shfl_up_sync(m,i,2)+__shfl_xor_sync(m,i,1,8)+__syncthreads_count(i&1)+__syncthreads_or(i==3)+__syncthreads_and(i<64);__syncwarp();
#if __CUDA_ARCH__>=800
 o[i]+=__reduce_add_sync(~0u,i)+__reduce_max_sync(~0u,i);
#endif
 o[i]+=__match_any_sync(~0u,i&3);int p;o[i]+=__match_all_sync(~0u,5,&p)+p;}
extern "C" __global__ void gsync(float*a,int n){cg::grid_group g=cg::this_grid();int i=blockIdx.x*blockDim.x+threadIdx.x;for(int r=0;r<3;r++){float v=a[(i+1)%n];g.sync();a[i]=v+1;g.sync();}}
extern "C" __global__ void halfs(__half*h,__nv_bfloat16*b,float*f,__half2*h2){int i=threadIdx.x;f[i]=__half2float(h[i])+__bfloat162float(b[i]);h[i]=__float2half(f[i]*2);b[i]=__float2bfloat16(f[i]*3);h2[i]=__hadd2(h2[i],h2[i]);h2[i]=__hfma2(h2[i],h2[i],h2[i]);}
extern "C" __global__ void pipe(const float*a,float*o){__shared__ __align__(16) float s[2][128];
 for(int k=0;k<4;k++){__pipeline_memcpy_async(&s[k&1][threadIdx.x*4],a+k*128+threadIdx.x*4,16);__pipeline_commit();if(k){__pipeline_wait_prior(1);__syncthreads();o[(k-1)*32+threadIdx.x]=s[(k-1)&1][threadIdx.x^1];__syncthreads();}}
 __pipeline_wait_prior(0);}
extern "C" __global__ void loc(int*a,int n){int buf[32];for(int i=0;i<32;i++)buf[i]=i*n;int s=0;for(int i=0;i<n;i++){buf[(i*7+threadIdx.x)&31]+=s;s+=buf[a[i]&31];}a[threadIdx.x]=s;}
extern "C" __global__ void dyn(float*a){extern __shared__ float4 sm[];__shared__ int st[8];float*s=(float*)sm;s[threadIdx.x]=a[threadIdx.x];if(threadIdx.x<8)st[threadIdx.x]=threadIdx.x;__syncthreads();a[threadIdx.x]=s[threadIdx.x^1]+st[threadIdx.x&7];}
extern "C" __global__ void gen(float*a,int w){__shared__ float s[64];float*p=w?a:s;p[threadIdx.x]=1;__syncthreads();a[threadIdx.x+64]=p[threadIdx.x];}
extern "C" __global__ void timer(long long*a){a[threadIdx.x]=clock64()+clock();__nanosleep(20);__threadfence();__threadfence_block();__threadfence_system();volatile int*v=(volatile int*)a;v[100]=v[101];}
extern "C" __global__ void asrt(int*a){assert(a[0]==0);printf("x %d\n",a[1]);}
extern "C" __global__ void nl(unsigned char*b,unsigned short*s,signed char*c,long long*l){int i=threadIdx.x;b[i]=b[i]+s[i];c[i]=c[i]*3;s[i]=max(s[i],(unsigned short)7);l[i]=l[i]*b[i]-c[i];uchar4 q=((uchar4*)b)[i];((short2*)s)[i]=make_short2(q.x,q.w);}
