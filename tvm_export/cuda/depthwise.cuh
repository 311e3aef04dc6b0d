// Convolve every channel by itself: each thread sums a few channels of kRows x kColumns pixels, weights in registers,
// and reads every row of the input once for all the pixels it matters to.
//
// P holds kHeight, kWidth, kStored, kOutHeight, kOutWidth, kOutStored, kImages; kKernelH, kKernelW, kStrideH, kStrideW,
// kTop, kLeft, kDilationH, kDilationW; kNibblesX, kSigned, kFill (a word of the code that pads); kRows, kColumns,
// kThreads, and what Requantize asks for. store(codes, pixel, channel) says what becomes of the result.
#ifndef HAWQ_DEPTHWISE
#define HAWQ_DEPTHWISE

namespace hawq {

// sum + x.byte[i] * w.byte[i]; the other bytes of the weights are masked.
template <bool kSigned>
__device__ __forceinline__ int multiply_byte(int sum, unsigned x, unsigned w, int i) {
  const unsigned weight = w & 255u << i * 8;
#ifdef HAWQ_EMULATED
  const int code = kSigned ? static_cast<signed char>(x >> i * 8) : static_cast<unsigned char>(x >> i * 8);
  return static_cast<int>(static_cast<unsigned>(sum) + code * static_cast<signed char>(weight >> i * 8));
#else
  if constexpr (kSigned)
    asm("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(x), "r"(weight));
  else
    asm("dp4a.u32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(x), "r"(weight));
  return sum;
#endif
}

// x: codes (image, row, column, channel); w: bytes (tap, channel), of 8 channels of nibbles the even ones first.
template <class P, class Store>
__device__ __forceinline__ void convolve_channels(const void* x, const void* w, const Channels& constants,
                                                  const Store& store) {
  constexpr int kWords = P::kNibblesX ? 2 : 1, kCodes = 4 * kWords;  // a word of codes as they are stored
  constexpr int kVectors = P::kStored / kCodes;
  constexpr int kBlocksW = (P::kOutWidth + P::kColumns - 1) / P::kColumns;
  constexpr int kBlocksH = (P::kOutHeight + P::kRows - 1) / P::kRows;
  constexpr int kReachH = (P::kRows - 1) * P::kStrideH + (P::kKernelH - 1) * P::kDilationH + 1;
  constexpr int kReachW = (P::kColumns - 1) * P::kStrideW + (P::kKernelW - 1) * P::kDilationW + 1;
  const int index = blockIdx.x * P::kThreads + threadIdx.x;
  const int channel = index % kVectors * kCodes, block = index / kVectors;
  const int image = block / (kBlocksW * kBlocksH);
  if (image >= P::kImages || channel >= P::kOutStored) return;
  const int out_h = block / kBlocksW % kBlocksH * P::kRows, out_w = block % kBlocksW * P::kColumns;
  const int top = out_h * P::kStrideH - P::kTop, left = out_w * P::kStrideW - P::kLeft;

  unsigned weights[P::kKernelH * P::kKernelW][kWords];
#pragma unroll
  for (int tap = 0; tap < P::kKernelH * P::kKernelW; ++tap)
#pragma unroll
    for (int word = 0; word < kWords; ++word)
      weights[tap][word] = static_cast<const unsigned*>(w)[(tap * P::kStored + channel) / 4 + word];

  int sums[P::kRows][P::kColumns][kCodes] = {};
#pragma unroll
  for (int row = 0; row < kReachH; ++row) {
    const int h = top + row;
    const bool inside = static_cast<unsigned>(h) < P::kHeight;
    const long long start = (static_cast<long long>(image) * P::kHeight + h) * P::kWidth;
#pragma unroll
    for (int column = 0; column < kReachW; ++column) {
      const int v = left + column;
      unsigned stored = P::kFill, codes[2];
      if (inside && static_cast<unsigned>(v) < P::kWidth)
        stored = static_cast<const unsigned*>(x)[((start + v) * P::kStored + channel) / kCodes];
      if constexpr (P::kNibblesX) widen<P::kSigned>(stored, codes[0], codes[1]); else codes[0] = stored;
      // which tap of which pixel this is, is known when loops are unrolled
#pragma unroll
      for (int r = 0; r < P::kRows; ++r) {
        const int down = row - r * P::kStrideH;
        if (down < 0 || down % P::kDilationH || down / P::kDilationH >= P::kKernelH) continue;
#pragma unroll
        for (int c = 0; c < P::kColumns; ++c) {
          const int right = column - c * P::kStrideW;
          if (right < 0 || right % P::kDilationW || right / P::kDilationW >= P::kKernelW) continue;
          const int tap = down / P::kDilationH * P::kKernelW + right / P::kDilationW;
#pragma unroll
          for (int i = 0; i < kCodes; ++i)
            sums[r][c][i] = multiply_byte<P::kSigned>(sums[r][c][i], codes[i / 4], weights[tap][i / 4], i % 4);
        }
      }
    }
  }

  Channel channels[kCodes];
#pragma unroll
  for (int i = 0; i < kCodes; ++i) channels[i] = constants[channel + i];
#pragma unroll
  for (int r = 0; r < P::kRows; ++r) {
#pragma unroll
    for (int c = 0; c < P::kColumns; ++c) {
      if (out_h + r >= P::kOutHeight || out_w + c >= P::kOutWidth) continue;
      const int pixel = (image * P::kOutHeight + out_h + r) * P::kOutWidth + out_w + c;
      typename P::template Y<kCodes> out;
#pragma unroll
      for (int i = 0; i < kCodes; ++i) {
        const int at = P::kNibblesX ? i % 4 * 2 + i / 4 : i;  // nibbles: even channels come first
        out.put(at, Requantize<P>()(sums[r][c][i], channels[at]));
      }
      store(out, pixel, channel);
    }
  }
}

}  // namespace hawq
#endif
