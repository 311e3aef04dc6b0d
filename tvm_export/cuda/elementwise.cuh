// Compute kCodes neighbouring channels of one pixel in every thread: pools, and ops that only look at one place.
//
// P holds kPixels, kVectors (threads for a pixel), kCodes, kThreads; for pools Y (the storage of the result as Codes), A
// and kStoredA (of the input), kHeight, kWidth, kOutHeight, kOutWidth, kKernelH, kKernelW, kStrideH, kStrideW, kTop,
// kLeft, kDilationH, kDilationW, and what clamp asks for. store(codes, pixel, channel) says what becomes of a result.
#ifndef HAWQ_ELEMENTWISE
#define HAWQ_ELEMENTWISE

namespace hawq {

// Call compute(pixel, channel) for this thread's codes.
template <class P, class Compute>
__device__ __forceinline__ void for_vector(const Compute& compute) {
  const int index = blockIdx.x * P::kThreads + threadIdx.x;
  const int pixel = index / P::kVectors, channel = index % P::kVectors * P::kCodes;
  if (pixel < P::kPixels) compute(pixel, channel);
}

// Call each(codes) for every tap of a pixel's window that lies in the map.
template <class P, class Each>
__device__ __forceinline__ void for_window(const void* x, int pixel, int channel, const Each& each) {
  const int image = pixel / (P::kOutHeight * P::kOutWidth);
  const int top = pixel / P::kOutWidth % P::kOutHeight * P::kStrideH - P::kTop;
  const int left = pixel % P::kOutWidth * P::kStrideW - P::kLeft;
  for (int kh = 0; kh < P::kKernelH; ++kh) {
    const int h = top + kh * P::kDilationH;
    if (static_cast<unsigned>(h) >= P::kHeight) continue;
#pragma unroll
    for (int kw = 0; kw < P::kKernelW; ++kw) {
      const int w = left + kw * P::kDilationW;
      if (static_cast<unsigned>(w) >= P::kWidth) continue;
      each(P::A::load(x, ((static_cast<long long>(image) * P::kHeight + h) * P::kWidth + w) * P::kStoredA + channel));
    }
  }
}

template <class P, class Store>
__device__ __forceinline__ void max_pool(const void* x, const Store& store) {
  for_vector<P>([&](int pixel, int channel) {
    int best[P::kCodes];
#pragma unroll
    for (int& code : best) code = P::kLo;  // what padding holds
    for_window<P>(x, pixel, channel, [&](const typename P::A& in) {
#pragma unroll
      for (int i = 0; i < P::kCodes; ++i) best[i] = in[i] > best[i] ? in[i] : best[i];
    });
    typename P::template Y<P::kCodes> out;
#pragma unroll
    for (int i = 0; i < P::kCodes; ++i) out.put(i, best[i]);
    store(out, pixel, channel);
  });
}

// multiplier, shift: one, or one for every pixel of the map.
template <class P, class Store>
__device__ __forceinline__ void average_pool(const void* x, const int* multiplier, const int* shift,
                                             const Store& store) {
  for_vector<P>([&](int pixel, int channel) {
    int sums[P::kCodes] = {};
    for_window<P>(x, pixel, channel, [&](const typename P::A& in) {
#pragma unroll
      for (int i = 0; i < P::kCodes; ++i) sums[i] += in[i] - P::kZeroA;
    });
    const int place = P::kOneCount ? 0 : pixel % (P::kOutHeight * P::kOutWidth), s = shift[place];
    typename P::template Y<P::kCodes> out;
#pragma unroll
    for (int i = 0; i < P::kCodes; ++i)
      out.put(i, clamp<P>(rounding_shift(static_cast<long long>(sums[i]) * multiplier[place], s)));
    store(out, pixel, channel);
  });
}

}  // namespace hawq
#endif
