// Convolve on integer tensor cores: an implicit GEMM of pixels x taps by taps x output channels, exact in int32.
//
// One family serves every layer. P, a struct of constants per layer, says the geometry, the storage and the tile:
//   kHeight, kWidth, kPixelBytes (of the stored channels), kOutHeight, kOutWidth, kOutStored, kPixels (of all images);
//   kKernelH, kKernelW, kStrideH, kStrideW, kTop, kLeft, kDilationH, kDilationW, kPadded; kNibblesX, kNibblesW
//   (storage), kSigned (input), kScaleW (16 sums fit), kFill (a word of the code that pads), kVector (bytes copied at
//   once); kTileM, kTileN, kWarpsM, kWarpsN, kStep (bytes of the wider operand), kStages, kSlices.
// The sum over the taps and channels of a window is one long row of bytes, so a step may span taps. Blocks take steps
// in turn through kStages buffers of shared memory that asynchronous copies fill ahead of the tensor cores. Where they
// cannot multiply codes as stored (4 bits on sm_90, 4 x 8 bits), codes are widened in registers; weights are packed so
// that what is widened meets its factor.
#ifndef HAWQ_CONV_MMA
#define HAWQ_CONV_MMA

namespace hawq {

// A tile of a layer, and what the architecture makes of it.
template <class P>
struct ConvTile {
  static constexpr int kTileM = P::kTileM, kTileN = P::kTileN, kWarpsM = P::kWarpsM, kWarpsN = P::kWarpsN;
  static constexpr int kThreads = kWarpsM * kWarpsN * 32;
  static constexpr int kFragmentsM = kTileM / kWarpsM / 16, kFragmentsN = kTileN / kWarpsN / 8;
  static constexpr bool kNibbles = P::kNibblesX && P::kNibblesW && HAWQ_ARCH < 900;  // multiplied as they are
  static constexpr bool kWidenX = P::kNibblesX && !kNibbles, kWidenW = P::kNibblesW && !kNibbles;
  static constexpr int kRowX = P::kNibblesX && !P::kNibblesW ? P::kStep / 2 : P::kStep;  // bytes of a step
  static constexpr int kRowW = P::kNibblesW && !P::kNibblesX ? P::kStep / 2 : P::kStep;
  static constexpr int kStages = HAWQ_ARCH >= 800 || P::kStages < 2 ? P::kStages : 2;
  static constexpr int kStageBytes = kTileM * kRowX + kTileN * kRowW, kSharedBytes = P::kStages * kStageBytes;
  static constexpr int kRowBytes = P::kKernelH * P::kKernelW * P::kPixelBytes;  // of a window
  static constexpr int kSteps = (kRowBytes + kRowX - 1) / kRowX;

  // The first pixel of a fragment, and this lane's first channel of one, within the tile.
  static __device__ __forceinline__ int pixel(int warp_m, int m) { return (warp_m * kFragmentsM + m) * 16; }
  static __device__ __forceinline__ int channel(int warp_n, int lane, int n) {
    return (warp_n * kFragmentsN + n) * 8 + lane % 4 * 2;
  }
};

// Where a byte of a row lies in shared memory: 16-byte vectors change places within each 128 bytes, so that the same
// vector of 8 rows in succession lies in 8 different groups of banks.
template <int kRow>
__device__ __forceinline__ int swizzled(int row, int byte) {
  return row * kRow + ((byte / 16 ^ row / (128 / kRow) % (kRow / 16)) * 16 | byte % 16);
}

// Load the 32 bytes at `byte` of 16 rows: words [0], [1] of the first 16 bytes of rows 0..7 and 8..15, then those of
// the last 16 bytes; with kRowsLast, words of rows 0..7 first.
template <int kRow, bool kRowsLast>
__device__ __forceinline__ void load_fragment(unsigned (&words)[4], const char* tile, int row, int byte) {
  const int lane = threadIdx.x % 32, matrix = lane / 8;
  const int rows = kRowsLast ? matrix / 2 : matrix % 2, bytes = kRowsLast ? matrix % 2 : matrix / 2;
  load_matrices(words, tile + swizzled<kRow>(row + rows * 8 + lane % 8, byte + bytes * 16));
}

// The rows of pixels this thread copies: every kPass-th, and of each the same vector.
template <class P>
struct PixelRows {
  using Tile = ConvTile<P>;
  static constexpr int kVectors = Tile::kRowX / P::kVector, kPass = Tile::kThreads / kVectors;
  static constexpr int kCount = (P::kTileM + kPass - 1) / kPass;
  int offset[kCount], h[kCount], w[kCount];

  __device__ __forceinline__ explicit PixelRows(int first_pixel) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int pixel = first_pixel + threadIdx.x / kVectors + i * kPass;
      const int image = pixel / (P::kOutHeight * P::kOutWidth);
      h[i] = pixel / P::kOutWidth % P::kOutHeight * P::kStrideH - P::kTop;
      w[i] = pixel % P::kOutWidth * P::kStrideW - P::kLeft;
      offset[i] = ((image * P::kHeight + h[i]) * P::kWidth + w[i]) * P::kPixelBytes;
      if (pixel >= P::kPixels) h[i] = -(1 << 30);  // outside of every map
    }
  }

  __device__ __forceinline__ void bring(const char* x, int step, char* tile) const {
    const int byte = threadIdx.x % kVectors * P::kVector, at = step * Tile::kRowX + byte;
    const int tap = at / P::kPixelBytes;
    const int kh = tap / P::kKernelW * P::kDilationH, kw = tap % P::kKernelW * P::kDilationW;
    const int moved = (kh * P::kWidth + kw) * P::kPixelBytes + at % P::kPixelBytes;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int row = threadIdx.x / kVectors + i * kPass;
      if (P::kTileM % kPass && row >= P::kTileM) break;
      bool exists = static_cast<unsigned>(h[i] + kh) < P::kHeight;
      if constexpr (P::kPadded) exists = exists && static_cast<unsigned>(w[i] + kw) < P::kWidth;
      if constexpr (Tile::kRowBytes % Tile::kRowX) exists = exists && at < Tile::kRowBytes;  // weights are 0 beyond
      char* to = tile + swizzled<Tile::kRowX>(row, byte);
      if constexpr (P::kFill) {
        if (!exists) {
#pragma unroll
          for (int word = 0; word < P::kVector / 4; ++word) reinterpret_cast<unsigned*>(to)[word] = P::kFill;
          continue;
        }
      }
      begin_copy<P::kVector>(to, x + offset[i] + moved, exists);
    }
  }
};

// Copy a step of the weights: rows of channels, padded to whole tiles and whole steps.
template <class P>
__device__ __forceinline__ void bring_weights(const char* w, int first_channel, int step, char* tile) {
  using Tile = ConvTile<P>;
  constexpr int kVectors = Tile::kRowW / 16;
#pragma unroll
  for (int first = 0; first < P::kTileN * kVectors; first += Tile::kThreads) {
    const int vector = first + threadIdx.x, row = vector / kVectors, byte = vector % kVectors * 16;
    if (P::kTileN * kVectors % Tile::kThreads && row >= P::kTileN) break;
    const int from = (first_channel + row) * (Tile::kSteps * Tile::kRowW) + step * Tile::kRowW + byte;
    begin_copy<16>(tile + swizzled<Tile::kRowW>(row, byte), w + from, true);
  }
}

// Add the products of one step. Widened operands hold two fragments of bytes in the 32 bytes of one.
template <class P>
__device__ __forceinline__ void multiply_step(
    int (&sums)[ConvTile<P>::kFragmentsM][ConvTile<P>::kFragmentsN][4], const char* tile_x, const char* tile_w) {
  using Tile = ConvTile<P>;
  constexpr int kTurns = Tile::kWidenX || Tile::kWidenW ? 2 : 1;  // of the tensor cores in an iteration
  constexpr int kBytesX = Tile::kWidenX ? 32 : 32 * kTurns, kBytesW = Tile::kWidenW ? 32 : 32 * kTurns;
  const int warp = threadIdx.x / 32, warp_m = warp / P::kWarpsN, warp_n = warp % P::kWarpsN;
#pragma unroll
  for (int k = 0; k < Tile::kRowX / kBytesX; ++k) {
    unsigned b[kTurns][Tile::kFragmentsN][2];
#pragma unroll
    for (int n = 0; n < Tile::kFragmentsN; n += 2) {
      const int row = (warp_n * Tile::kFragmentsN + n) * 8;
#pragma unroll
      for (int turn = 0; turn < (Tile::kWidenW ? 1 : kTurns); ++turn) {
        unsigned words[4];
        load_fragment<Tile::kRowW, true>(words, tile_w, row, k * kBytesW + turn * 32);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if constexpr (!Tile::kWidenW) {
            b[turn][n + i / 2][i % 2] = words[i];
          } else {
            unsigned(&pair)[2] = b[i % 2][n + i / 2];
            if constexpr (P::kScaleW) widen_16_times(words[i], pair[0], pair[1]); else widen<true>(words[i], pair[0], pair[1]);
          }
        }
      }
    }
#pragma unroll
    for (int m = 0; m < Tile::kFragmentsM; ++m) {
      const int row = Tile::pixel(warp_m, m);
      unsigned words[4];
      if constexpr (Tile::kWidenX) load_fragment<Tile::kRowX, false>(words, tile_x, row, k * kBytesX);
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        unsigned a[4];
        if constexpr (Tile::kWidenX) {
#pragma unroll
          for (int i = 0; i < 2; ++i) widen<P::kSigned>(words[turn * 2 + i], a[i], a[i + 2]);
        } else {
          load_fragment<Tile::kRowX, false>(a, tile_x, row, k * kBytesX + turn * 32);
        }
#pragma unroll
        for (int n = 0; n < Tile::kFragmentsN; ++n) multiply<Tile::kNibbles, P::kSigned>(sums[m][n], a, b[turn][n]);
      }
    }
  }
}

// x: codes (image, row, column, channel); w: codes (channel of the output, bytes of the window). Blocks are numbered
// (tile of pixels, tile of channels), channels first: neighbours share pixels. memory: ConvTile<P>::kSharedBytes. Codes
// are stored by kCodes.
template <class P, int kCodes, class Code, class Store>
__device__ __forceinline__ void convolve(const void* x, const void* w, const Channels& constants, void* memory,
                                         const Code& code, const Store& store) {
  using Tile = ConvTile<P>;
  constexpr int kTilesN = (P::kOutStored + P::kTileN - 1) / P::kTileN;
  constexpr int kSliceSteps = (Tile::kSteps + P::kSlices - 1) / P::kSlices;
  char* shared = static_cast<char*>(memory);
  const int first_pixel = blockIdx.x / kTilesN * P::kTileM, first_channel = blockIdx.x % kTilesN * P::kTileN;
  const int slice = P::kSlices > 1 ? blockIdx.y : 0;
  const int begin = slice * kSliceSteps;
  const int end = begin + kSliceSteps < Tile::kSteps ? begin + kSliceSteps : Tile::kSteps;
  const PixelRows<P> rows(first_pixel);

  const auto bring = [&](int step) {
    if (step < end) {
      char* stage = shared + (step - begin) % Tile::kStages * Tile::kStageBytes;
      rows.bring(static_cast<const char*>(x), step, stage);
      bring_weights<P>(static_cast<const char*>(w), first_channel, step, stage + P::kTileM * Tile::kRowX);
    }
    end_group();
  };
#pragma unroll
  for (int ahead = 0; ahead < Tile::kStages - 1; ++ahead) bring(begin + ahead);

  int sums[Tile::kFragmentsM][Tile::kFragmentsN][4] = {};  // in registers, as long as loops over fragments unroll
#if HAWQ_ARCH < 800
#pragma unroll 1  // copies pass through registers there: those of several steps would push sums out
#endif
  for (int step = begin; step < end; ++step) {
    wait_groups<Tile::kStages - 2>();
    __syncthreads();  // this step has arrived for all threads, and the buffer of the step before is free
    bring(step + Tile::kStages - 1);
    const char* stage = shared + (step - begin) % Tile::kStages * Tile::kStageBytes;
    multiply_step<P>(sums, stage, stage + P::kTileM * Tile::kRowX);
  }
  if constexpr (Tile::kWidenW && P::kScaleW) {
    for (auto& row : sums)
      for (auto& fragment : row)
        for (int& sum : fragment) sum >>= 4;
  }

  store_tile<Tile, kCodes>(sums, shared, first_pixel, P::kPixels, first_channel, P::kOutStored, constants, code, store);
}

// Keep the sums of a slice of the window, int32 (slice, pixel, channel), for finish_slices.
template <class P>
__device__ __forceinline__ void convolve_slice(const void* x, const void* w, void* memory, void* sums) {
  convolve<P, 4>(x, w, {}, memory, KeepSum(), [=](const auto& codes, int pixel, int channel) {
    codes.store(sums, (static_cast<long long>(blockIdx.y) * P::kPixels + pixel) * P::kOutStored + channel);
  });
}

}  // namespace hawq
#endif
