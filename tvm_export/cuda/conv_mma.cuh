// Convolve on integer tensor cores: an implicit GEMM of pixels x taps by taps x output channels, exact in int32.
//
// One family serves every layer. P, a struct of constants per layer, says the geometry and the storage; HAWQ_ARCH, the
// architecture the compiler works for, says the instruction:
//   sm_75          m8n8k16 (int8), m8n8k32 (int4)
//   sm_80 .. 89    m16n8k32 (int8), m16n8k64 (int4)
//   sm_90 on       m16n8k32; 4-bit codes are widened to bytes on their way into shared memory, for these
//                  architectures have no 4-bit tensor cores
// Layers that mix 4- and 8-bit operands widen the 4-bit one on every architecture.
//
// A block of 128 threads makes a tile of 64 pixels x 64 channels; each of its 4 warps a 32 x 32 part, as 2 x 4
// fragments of 16 x 8. Both operands pass through shared memory in chunks of 8 words a row.
#ifndef HAWQ_CONV_MMA
#define HAWQ_CONV_MMA

#ifndef HAWQ_ARCH
#ifdef __CUDA_ARCH__
#define HAWQ_ARCH __CUDA_ARCH__
#else
#define HAWQ_ARCH 0
#endif
#endif

namespace hawq {

constexpr int kTile = 64, kThreads = 128, kWords = 8;
constexpr int kStride = kWords + 4;  // words between rows in shared memory: the 8 rows of a fragment hit 32 banks

#ifndef HAWQ_EMULATED  // an emulator of the instructions brings its own
#define HAWQ_MMA16(NAME, SHAPE, SIGN_A, SIGN_B)                                                                 \
  __device__ __forceinline__ void NAME(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {           \
    asm volatile("mma.sync.aligned." SHAPE ".row.col.s32." SIGN_A "." SIGN_B                                    \
                 ".s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                   \
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])                                               \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                           \
  }
#define HAWQ_MMA8(NAME, SHAPE, SIGN_A, SIGN_B)                                                                  \
  __device__ __forceinline__ void NAME(int& c0, int& c1, unsigned a, unsigned b) {                              \
    asm volatile("mma.sync.aligned." SHAPE ".row.col.s32." SIGN_A "." SIGN_B ".s32 {%0,%1}, {%2}, {%3}, {%0,%1};" \
                 : "+r"(c0), "+r"(c1)                                                                           \
                 : "r"(a), "r"(b));                                                                             \
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
#endif

// c += a * b for a fragment of 16 pixels x 8 channels over 8 words of each row.
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
    for (int half = 0; half < 2; ++half) {  // a[half * 2 + rows]: 8 rows of the fragment, 4 words of each
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

// Widen 8 codes of 4 bits to 8 bytes, in order.
template <bool kSigned>
__device__ __forceinline__ void widen(unsigned nibbles, unsigned& first, unsigned& second) {
  unsigned even = nibbles & 0x0F0F0F0Fu, odd = (nibbles >> 4) & 0x0F0F0F0Fu;
  if constexpr (kSigned) {  // copy bit 3 of every byte into bits 4..7
    even |= (even & 0x08080808u) * 0x1Eu;
    odd |= (odd & 0x08080808u) * 0x1Eu;
  }
  first = __byte_perm(even, odd, 0x5140);
  second = __byte_perm(even, odd, 0x7362);
}

// Bring one half of a chunk's row, 4 words as the tensor cores take them, into shared memory.
template <bool kWiden, bool kSigned>
__device__ __forceinline__ void stage(unsigned* to, const unsigned* from, bool inside, unsigned outside) {
  if constexpr (kWiden) {
#pragma unroll
    for (int i = 0; i < 2; ++i) widen<kSigned>(inside ? from[i] : outside, to[i * 2], to[i * 2 + 1]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = inside ? from[i] : outside;
  }
}

template <class P>
__device__ __forceinline__ int requantize(int acc, int multiplier, int shift) {
  if constexpr (P::kAccumulate) return acc;
  long long value = (static_cast<long long>(acc) * multiplier + (1LL << (shift - 1))) >> shift;
  value += P::kZero;
  return static_cast<int>(value < P::kLo ? P::kLo : value > P::kHi ? P::kHi : value);
}

// P holds: kHeight, kWidth, kChannels (stored) of the input, kOutHeight, kOutWidth, kOutStored, kImages; kKernelH,
// kKernelW, kStrideH, kStrideW, kTop, kLeft, kDilationH, kDilationW; kNibblesX, kNibblesW (storage), kSigned (input),
// kFill (one word of the code that pads); Out (element type), kPackOut, kAccumulate, kZero, kLo, kHi.
// x: codes (image, row, column, channel); w: codes (channel of the output padded to 64, tap row, tap column, channel).
template <class P>
__device__ __forceinline__ void convolve(const void* x, const void* w, const int* bias, const int* multiplier,
                                         const int* shift, void* y) {
  // 4-bit tensor cores multiply nibbles as they are; everything else multiplies bytes
  constexpr bool kNibbles = P::kNibblesX && P::kNibblesW && HAWQ_ARCH < 900;
  constexpr bool kWidenX = P::kNibblesX && !kNibbles, kWidenW = P::kNibblesW && !kNibbles;
  constexpr int kChunk = kNibbles ? 64 : 32;  // codes
  constexpr int kChunks = (P::kChannels + kChunk - 1) / kChunk;
  constexpr int kPixels = P::kImages * P::kOutHeight * P::kOutWidth;
  constexpr int kWordsX = P::kNibblesX ? 8 : 4, kWordsW = P::kNibblesW ? 8 : 4;  // codes in a word
  __shared__ unsigned tile_x[kTile * kStride], tile_w[kTile * kStride];

  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int row = thread / 2, half = thread % 2;  // of the tiles this thread brings in
  const int pixel = blockIdx.x * kTile + row, channel = blockIdx.y * kTile + row;
  const int image = pixel / (P::kOutHeight * P::kOutWidth);
  const int base_h = pixel / P::kOutWidth % P::kOutHeight * P::kStrideH - P::kTop;
  const int base_w = pixel % P::kOutWidth * P::kStrideW - P::kLeft;
  const unsigned* words_x = static_cast<const unsigned*>(x);
  const unsigned* words_w = static_cast<const unsigned*>(w);

  int sums[2][4][4] = {};  // in registers, as long as every loop over fragments is unrolled
  for (int tap = 0; tap < P::kKernelH * P::kKernelW; ++tap) {
    const int h = base_h + tap / P::kKernelW * P::kDilationH, v = base_w + tap % P::kKernelW * P::kDilationW;
    const bool inside = pixel < kPixels && h >= 0 && h < P::kHeight && v >= 0 && v < P::kWidth;
    const unsigned* from_x = words_x + ((image * P::kHeight + h) * P::kWidth + v) * (P::kChannels / kWordsX);
    const unsigned* from_w = words_w + (channel * P::kKernelH * P::kKernelW + tap) * (P::kChannels / kWordsW);
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const int code = chunk * kChunk + half * (kChunk / 2);  // where this thread's half of the row begins
      stage<kWidenX, P::kSigned>(tile_x + row * kStride + half * 4, from_x + code / kWordsX, inside, P::kFill);
      stage<kWidenW, true>(tile_w + row * kStride + half * 4, from_w + code / kWordsW, true, 0u);
      __syncthreads();
      unsigned b[4][2];
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int k = 0; k < 2; ++k) b[n][k] = tile_w[(warp % 2 * 32 + n * 8 + lane / 4) * kStride + k * 4 + lane % 4];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        unsigned a[4];
#pragma unroll
        for (int r = 0; r < 4; ++r)
          a[r] = tile_x[(warp / 2 * 32 + m * 16 + r % 2 * 8 + lane / 4) * kStride + r / 2 * 4 + lane % 4];
#pragma unroll
        for (int n = 0; n < 4; ++n) multiply<kNibbles, P::kSigned>(sums[m][n], a, b[n]);
      }
      __syncthreads();
    }
  }

  typename P::Out* out = static_cast<typename P::Out*>(y);
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int p = blockIdx.x * kTile + warp / 2 * 32 + m * 16 + r * 8 + lane / 4;
      if (p >= kPixels) continue;
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int o = blockIdx.y * kTile + warp % 2 * 32 + n * 8 + lane % 4 * 2;  // and o + 1
        if (o >= P::kOutStored) continue;
        int codes[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          // unsigned: without the zero point in the sum each part may leave int32, and both wrap back together
          const int acc = static_cast<int>(static_cast<unsigned>(sums[m][n][r * 2 + i]) + bias[o + i]);
          codes[i] = P::kAccumulate ? acc : requantize<P>(acc, multiplier[o + i], shift[o + i]);
        }
        if constexpr (P::kPackOut) {
          out[(p * P::kOutStored + o) / 2] = static_cast<typename P::Out>((codes[0] & 15) | (codes[1] & 15) << 4);
        } else {
#pragma unroll
          for (int i = 0; i < 2; ++i) out[p * P::kOutStored + o + i] = static_cast<typename P::Out>(codes[i]);
        }
      }
    }
  }
}

}  // namespace hawq
#endif
