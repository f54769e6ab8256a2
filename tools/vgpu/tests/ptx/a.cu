#include <math.h>
#include <stdint.h>
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#define BM 64
#define BN 64
#define BK 16
extern "C" __global__ __launch_bounds__(256) void sgemm(int M,int N,int K,const float* __restrict__ A,const float* __restrict__ B,float* __restrict__ C){
  __shared__ __align__(16) float As[BK][BM+4]; __shared__ __align__(16) float Bs[BK][BN];
  int tx=threadIdx.x%16, ty=threadIdx.x/16; int bm=blockIdx.y*BM, bn=blockIdx.x*BN;
  float acc[4][4]={};
  for(int k0=0;k0<K;k0+=BK){
    { int r=threadIdx.x/4,c=(threadIdx.x%4)*4; float4 v=*(const float4*)&A[(size_t)(bm+r)*K+k0+c];
      As[c][r]=v.x;As[c+1][r]=v.y;As[c+2][r]=v.z;As[c+3][r]=v.w; }
    { int r=threadIdx.x/16,c=(threadIdx.x%16)*4; *(float4*)&Bs[r][c]=*(const float4*)&B[(size_t)(k0+r)*N+bn+c]; }
    __syncthreads();
    #pragma unroll
    for(int k=0;k<BK;k++){ float4 a=*(float4*)&As[k][ty*4]; float4 b=*(float4*)&Bs[k][tx*4];
      float aa[4]={a.x,a.y,a.z,a.w},bb[4]={b.x,b.y,b.z,b.w};
      for(int i=0;i<4;i++)for(int j=0;j<4;j++)acc[i][j]=fmaf(aa[i],bb[j],acc[i][j]); }
    __syncthreads();
  }
  for(int i=0;i<4;i++) *(float4*)&C[(size_t)(bm+ty*4+i)*N+bn+tx*4]=make_float4(acc[i][0],acc[i][1],acc[i][2],acc[i][3]);
}
extern "C" __global__ void reduce(const float*x,float*out,int n){
  __shared__ float s[32]; float v=0; for(int i=blockIdx.x*blockDim.x+threadIdx.x;i<n;i+=gridDim.x*blockDim.x)v+=x[i];
  for(int o=16;o;o>>=1)v+=__shfl_down_sync(~0u,v,o);
  if(threadIdx.x%32==0)s[threadIdx.x/32]=v; __syncthreads();
  if(threadIdx.x<32){v=threadIdx.x<blockDim.x/32?s[threadIdx.x]:0; for(int o=16;o;o>>=1)v+=__shfl_xor_sync(~0u,v,o); if(threadIdx.x==0)atomicAdd(out,v);}
}
__device__ void gridbar(unsigned*c,unsigned n){ __syncthreads(); if(threadIdx.x==0){ asm volatile("red.release.gpu.global.add.u32 [%0], 1;"::"l"(c):"memory"); unsigned v; do{ asm volatile("ld.acquire.gpu.u32 %0,[%1];":"=r"(v):"l"(c):"memory"); }while(v<n);} __syncthreads(); }
extern "C" __global__ void spin(unsigned*c,float*x,int rounds){ unsigned g=gridDim.x; int n=g*blockDim.x; int i=blockIdx.x*blockDim.x+threadIdx.x;
  for(int r=0;r<rounds;r++){ float a=x[(i+33)%n]; gridbar(c,g*(2*r+1)); x[i]=a+1; gridbar(c,g*(2*r+2)); } }
extern "C" __global__ void idiv(const int*a,const int*b,int*q,int*r,unsigned long long*w,long long*ll){int i=threadIdx.x; q[i]=a[i]/b[i]; r[i]=a[i]%b[i]; w[i]=(unsigned long long)(unsigned)a[i]/(unsigned)(b[i]|1)*7ull; ll[i]=(ll[i]*1234567891011ll)/ (b[i]|1) + __mul64hi(ll[i],ll[i]);}
extern "C" __global__ void maths(const float*x,float*y,double*d){int i=blockIdx.x*blockDim.x+threadIdx.x; float v=x[i];
 y[i*12]=expf(v);y[i*12+1]=logf(fabsf(v));y[i*12+2]=tanhf(v);y[i*12+3]=expm1f(v);y[i*12+4]=log1pf(fabsf(v));y[i*12+5]=sinf(v*1e6f);y[i*12+6]=1.f/(1.f+expf(-v));y[i*12+7]=sqrtf(fabsf(v));y[i*12+8]=powf(fabsf(v),1.3f);y[i*12+9]=rsqrtf(fabsf(v));y[i*12+10]=v/(v+3);y[i*12+11]=cosf(v)+erff(v);
 d[i]=exp(d[i])*log(fabs(d[i]))+sqrt(fabs(d[i]))/3.0+pow(d[i],3.3)+floor(d[i])+(double)(int)d[i]; }
extern "C" __global__ void fast(const float*x,float*y){int i=threadIdx.x;float v=x[i];y[i]=__expf(v)+__logf(fabsf(v))+__sinf(v)+__cosf(v)+__fdividef(v,3.f)+__frcp_rn(v)+__fsqrt_rn(fabsf(v))+__fadd_rz(v,1.f)+__fmul_ru(v,1.1f)+__fmaf_rd(v,v,0.1f)+__saturatef(v)+rintf(v)+truncf(v)+ceilf(v)+__uint2float_rz(i*12345678u)+__float2int_rd(v)+__fdiv_ru(v,3.f)+__fsqrt_rd(fabsf(v));float t; asm("tanh.approx.f32 %0,%1;":"=f"(t):"f"(v)); y[i]+=t;}
struct P{float*a;int n;float s;double d;short h;char c;int dims[4];};
extern "C" __global__ void byval(P p,unsigned char k){int i=threadIdx.x; if(i<p.n)p.a[i]=p.s*p.dims[i&3]+p.d+p.h+p.c+k;}
__noinline__ __device__ float helper(float a,int n,float3 q){ for(int i=0;i<n;i++){ if(i==3)return a; a=a*q.x+q.y*q.z;} return a;}
__noinline__ __device__ float3 h3(float a){return make_float3(a,a*2,a*3);}
extern "C" __global__ void calls(float*a,int n){int i=threadIdx.x; a[i]=helper(a[i],i%n,h3(a[i]));}
extern "C" __global__ void philox(unsigned*o,unsigned k0,unsigned k1){unsigned c[4]={threadIdx.x,blockIdx.x,0,0};
 for(int r=0;r<10;r++){unsigned h0=__umulhi(0xD2511F53u,c[0]),l0=0xD2511F53u*c[0],h1=__umulhi(0xCD9E8D57u,c[2]),l1=0xCD9E8D57u*c[2];c[0]=h1^c[1]^k0;c[1]=l1;c[2]=h0^c[3]^k1;c[3]=l0;k0+=0x9E3779B9;k1+=0xBB67AE85;}
 ((uint4*)o)[blockIdx.x*blockDim.x+threadIdx.x]=make_uint4(c[0],c[1],c[2],c[3]);}
extern "C" __global__ void sw(int*a){int i=threadIdx.x;int v=a[i];switch(v){case 0:v=7;break;case 1:v=v*3;break;case 2:v=v-100;break;case 3:v=v^0x55;break;case 4:v=__popc(v*77);break;case 5:v=__clz(v);break;case 6:v=__brev(v);break;case 7:v=__ffs(v);break;default:v=-1;}a[i]=v;}
extern "C" __global__ void bits(unsigned*a,unsigned long long*b){int i=threadIdx.x;unsigned v=a[i];unsigned long long w=b[i];
 a[i]=__byte_perm(v,v*3,0x4321)+__funnelshift_l(v,v*5,v&31)+(v<<7|v>>3)+__popcll(w)+__clzll(w)+__brevll(w)+__sad((int)v,3,4u)+__vadd4(v,v)+max((int)v,3)+min(v,9u)+abs((int)v)+(short)v+(unsigned char)v+__dp4a((int)v,3,4); b[i]=w<<(v&63)|w>>3;}
