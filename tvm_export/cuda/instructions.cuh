// Name the instructions of integer tensor cores, and of the copies that feed them, by what they do.
//
// HAWQ_ARCH is the architecture the compiler works for, and says what exists:
//   sm_75          m8n8k16 (int8), m8n8k32 (int4); copies pass through registers
//   sm_80 .. 89    m16n8k32 (int8), m16n8k64 (int4); cp.async
//   sm_90 on       m16n8k32; no 4-bit tensor cores; cp.async
#ifndef HAWQ_INSTRUCTIONS
#define HAWQ_INSTRUCTIONS

#ifndef HAWQ_ARCH
#ifdef __CUDA_ARCH__
#define HAWQ_ARCH __CUDA_ARCH__
#else
#define HAWQ_ARCH 0
#endif
#endif

namespace hawq {

#ifndef HAWQ_EMULATED  // an emulator of the instructions brings its own
#define HAWQ_MMA16(NAME, SHAPE, SIGN_A, SIGN_B)                                                                   \
  __device__ __forceinline__ void NAME(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {             \
    asm("mma.sync.aligned." SHAPE ".row.col.s32." SIGN_A "." SIGN_B                                               \
        ".s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                              \
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])                                                          \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                                      \
  }
#define HAWQ_MMA8(NAME, SHAPE, SIGN_A, SIGN_B)                                                                    \
  __device__ __forceinline__ void NAME(int& c0, int& c1, unsigned a, unsigned b) {                                \
    asm("mma.sync.aligned." SHAPE ".row.col.s32." SIGN_A "." SIGN_B ".s32 {%0,%1}, {%2}, {%3}, {%0,%1};"          \
        : "+r"(c0), "+r"(c1)                                                                                      \
        : "r"(a), "r"(b));                                                                                        \
  }
#if HAWQ_ARCH >= 800
HAWQ_MMA16(mma_m16n8k32_u8, "m16n8k32", "u8", "s8")
HAWQ_MMA16(mma_m16n8k32_s8, "m16n8k32", "s8", "s8")
#if HAWQ_ARCH < 900
HAWQ_MMA16(mma_m16n8k64_u4, "m16n8k64", "u4", "s4")
HAWQ_MMA16(mma_m16n8k64_s4, "m16n8k64", "s4", "s4")
#endif
#else
HAWQ_MMA8(mma_m8n8k16_u8, "m8n8k16", "u8", "s8")
HAWQ_MMA8(mma_m8n8k16_s8, "m8n8k16", "s8", "s8")
HAWQ_MMA8(mma_m8n8k32_u4, "m8n8k32", "u4", "s4")
HAWQ_MMA8(mma_m8n8k32_s4, "m8n8k32", "s4", "s4")
#endif

// Load four matrices of 8 rows x 16 bytes from shared memory; lane i names row i % 8 of matrix i / 8 and gets word
// i % 4 of row i / 4 of each.
__device__ __forceinline__ void load_matrices(unsigned (&words)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
}

// Begin to copy 4, 8 or 16 bytes into shared memory; zeros where the source does not exist, which then is not read.
template <int kBytes>
__device__ __forceinline__ void begin_copy(void* to, const void* from, bool exists) {
#if HAWQ_ARCH >= 800
  const unsigned target = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int size = exists ? kBytes : 0;
  if constexpr (kBytes == 16)  // .cg leaves L1 to what is read twice
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(target), "l"(from), "r"(size) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(target), "l"(from), "r"(size), "n"(kBytes)
                 : "memory");
#else
  if constexpr (kBytes == 16)
    *static_cast<int4*>(to) = exists ? *static_cast<const int4*>(from) : make_int4(0, 0, 0, 0);
  else if constexpr (kBytes == 8)
    *static_cast<int2*>(to) = exists ? *static_cast<const int2*>(from) : make_int2(0, 0);
  else
    *static_cast<int*>(to) = exists ? *static_cast<const int*>(from) : 0;
#endif
}

// End a group of copies; groups count even when they are empty.
__device__ __forceinline__ void end_group() {
#if HAWQ_ARCH >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Wait until at most kLeft groups of this thread's copies are under way.
template <int kLeft>
__device__ __forceinline__ void wait_groups() {
#if HAWQ_ARCH >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
#endif
}
#endif

// c += a * b for a fragment of 16 pixels x 8 channels over 32 bytes of each row.
template <bool kNibbles, bool kSigned>
__device__ __forceinline__ void multiply(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if HAWQ_ARCH >= 800
#if HAWQ_ARCH < 900
  if constexpr (kNibbles) {
    if constexpr (kSigned) mma_m16n8k64_s4(c, a, b); else mma_m16n8k64_u4(c, a, b);
    return;
  }
#endif
  if constexpr (kSigned) mma_m16n8k32_s8(c, a, b); else mma_m16n8k32_u8(c, a, b);
#else
#pragma unroll
  for (int rows = 0; rows < 2; ++rows) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // a[half * 2 + rows]: 8 rows of the fragment, 16 bytes of each
      int &c0 = c[rows * 2], &c1 = c[rows * 2 + 1];
      const unsigned x = a[half * 2 + rows], y = b[half];
      if constexpr (kNibbles) {
        if constexpr (kSigned) mma_m8n8k32_s4(c0, c1, x, y); else mma_m8n8k32_u4(c0, c1, x, y);
      } else {
        if constexpr (kSigned) mma_m8n8k16_s8(c0, c1, x, y); else mma_m8n8k16_u8(c0, c1, x, y);
      }
    }
  }
#endif
}

// Copy bit 3 of every byte into its bits 4..7.
__device__ __forceinline__ unsigned extend_sign(unsigned nibbles) {
  return nibbles | (nibbles & 0x08080808u) * 0x1Eu;
}

// Widen 8 codes of 4 bits to 8 bytes: those in the low nibbles, then those in the high ones.
template <bool kSigned>
__device__ __forceinline__ void widen(unsigned nibbles, unsigned& low, unsigned& high) {
  low = nibbles & 0x0F0F0F0Fu, high = (nibbles >> 4) & 0x0F0F0F0Fu;
  if constexpr (kSigned) low = extend_sign(low), high = extend_sign(high);
}

// Widen 8 signed codes of 4 bits to 8 bytes of 16 times the code: three instructions instead of nine.
__device__ __forceinline__ void widen_16_times(unsigned nibbles, unsigned& low, unsigned& high) {
  low = (nibbles << 4) & 0xF0F0F0F0u, high = nibbles & 0xF0F0F0F0u;
}

}  // namespace hawq
#endif
