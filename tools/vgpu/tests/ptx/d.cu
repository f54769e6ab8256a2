#include <stdint.h>
__device__ __forceinline__ unsigned at(const void*p){ return (unsigned)__cvta_generic_to_shared(p); }
__device__ __forceinline__ unsigned in_block(unsigned a,unsigned rank){ unsigned r; asm("mapa.shared::cluster.u32 %0, %1, %2;":"=r"(r):"r"(a),"r"(rank)); return r; }
__device__ __forceinline__ void csync(){ asm volatile("barrier.cluster.arrive.aligned;\n barrier.cluster.wait.aligned;":::"memory"); }
__device__ __forceinline__ void await(unsigned m,int phase){ unsigned there; do asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}":"=r"(there):"r"(m),"r"(phase):"memory"); while(!there); }
// Each block of a cluster of 16 has a value for each of its 64 threads; each round it sends them to all others, whose
// mbarriers count them, and takes the sum of what came: no barrier between the rounds.
extern "C" __global__ void sends(const float*x,float*out,int rounds){
  __shared__ float in[2][16][64]; __shared__ uint64_t arrivals[2]; unsigned rank; asm("mov.u32 %0, %%cluster_ctarank;":"=r"(rank));
  int t=threadIdx.x; float v=x[blockIdx.x*64+t];
  if(t<2) asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;"::"r"(at(arrivals+t)):"memory");
  asm volatile("fence.mbarrier_init.release.cluster;":::"memory"); csync();
  for(int r=0;r<rounds;r++){ unsigned m=at(arrivals+(r&1));
    if(t==0) asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"::"r"(m),"r"(16*64*4):"memory");
    for(int k=0;k<16;k++) asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];"::"r"(in_block(at(&in[r&1][rank][t]),k)),"f"(v),"r"(in_block(m,k)):"memory");
    await(m,r>>1&1); v=0; for(int k=0;k<16;k++) v=v*0.5f+in[r&1][k][t]; }
  out[blockIdx.x*64+t]=v; csync(); }
