// Compute kCodes neighbouring channels of one pixel in every thread: add, multiply, look up, requantize, pool.
//
// P holds kPixels, kVectors (threads for a pixel), kOutStored, Out (the storage of the result as Codes), A and kStoredA
// (of the input, B and kStoredB of a second one), kZero, kLo, kHi; for products
// kPixelsB (pixels of the result for one of B); for pools kHeight, kWidth, kOutHeight, kOutWidth,
// kKernelH, kKernelW, kStrideH, kStrideW, kTop, kLeft, kDilationH, kDilationW, kSourceZero.
#ifndef HAWQ_ELEMENTWISE
#define HAWQ_ELEMENTWISE

namespace hawq {

// Call compute(pixel, channel) for this thread's codes; those that no input stores need no value.
template <class P, class Compute>
__device__ __forceinline__ void for_vector(const Compute& compute) {
  const int index = blockIdx.x * P::kThreads + threadIdx.x;
  const int pixel = index / P::kVectors, channel = index % P::kVectors * P::kCodes;
  if (pixel < P::kPixels && channel < P::kStoredA) compute(pixel, channel);
}

template <class P>
__device__ __forceinline__ void add(const void* a, const void* b, const int* multiplier, const int* shift, void* y) {
  for_vector<P>([&](int pixel, int channel) {
    if (channel >= P::kStoredB) return;
    typename P::A first;
    typename P::B second;
    typename P::Y out;
    first.load(a, static_cast<long long>(pixel) * P::kStoredA + channel);
    second.load(b, static_cast<long long>(pixel) * P::kStoredB + channel);
    const int s = shift[0];
#pragma unroll
    for (int i = 0; i < P::kCodes; ++i) {
      const long long sum = static_cast<long long>(first[i] - P::kZeroA) * multiplier[0] +
                            static_cast<long long>(second[i] - P::kZeroB) * multiplier[1];
      out.put(i, clamp<P>((sum + (1LL << (s - 1))) >> s));
    }
    out.store(y, static_cast<long long>(pixel) * P::kOutStored + channel);
  });
}

template <class P>
__device__ __forceinline__ void multiply(const void* a, const void* b, const int* multiplier, const int* shift,
                                         void* y) {
  for_vector<P>([&](int pixel, int channel) {
    if (channel >= P::kStoredB) return;
    typename P::A first;
    typename P::B second;
    typename P::Y out;
    first.load(a, static_cast<long long>(pixel) * P::kStoredA + channel);
    second.load(b, static_cast<long long>(pixel / P::kPixelsB) * P::kStoredB + channel);
    const int s = shift[0];
#pragma unroll
    for (int i = 0; i < P::kCodes; ++i) {
      const long long product = static_cast<long long>((first[i] - P::kZeroA) * (second[i] - P::kZeroB)) * multiplier[0];
      out.put(i, clamp<P>((product + (1LL << (s - 1))) >> s));
    }
    out.store(y, static_cast<long long>(pixel) * P::kOutStored + channel);
  });
}

// table: 256 codes, by the byte that holds the input.
template <class P>
__device__ __forceinline__ void look_up(const void* x, const int* table, void* y) {
  for_vector<P>([&](int pixel, int channel) {
    typename P::A in;
    typename P::Y out;
    in.load(x, static_cast<long long>(pixel) * P::kStoredA + channel);
#pragma unroll
    for (int i = 0; i < P::kCodes; ++i) out.put(i, table[in[i] & 255]);
    out.store(y, static_cast<long long>(pixel) * P::kOutStored + channel);
  });
}

template <class P>
__device__ __forceinline__ void requantize(const void* x, const int* multiplier, const int* shift, void* y) {
  for_vector<P>([&](int pixel, int channel) {
    typename P::A in;
    typename P::Y out;
    in.load(x, static_cast<long long>(pixel) * P::kStoredA + channel);
    const int s = shift[0];
#pragma unroll
    for (int i = 0; i < P::kCodes; ++i) {  // int64: accumulators fill int32
      const long long product = (static_cast<long long>(in[i]) - P::kZeroA) * multiplier[0];
      out.put(i, clamp<P>((product + (1LL << (s - 1))) >> s));
    }
    out.store(y, static_cast<long long>(pixel) * P::kOutStored + channel);
  });
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
      typename P::A in;
      in.load(x, ((static_cast<long long>(image) * P::kHeight + h) * P::kWidth + w) * P::kStoredA + channel);
      each(in);
    }
  }
}

template <class P>
__device__ __forceinline__ void max_pool(const void* x, void* y) {
  for_vector<P>([&](int pixel, int channel) {
    int best[P::kCodes];
#pragma unroll
    for (int& code : best) code = P::kLo;  // what padding holds
    for_window<P>(x, pixel, channel, [&](const typename P::A& in) {
#pragma unroll
      for (int i = 0; i < P::kCodes; ++i) best[i] = in[i] > best[i] ? in[i] : best[i];
    });
    typename P::Y out;
#pragma unroll
    for (int i = 0; i < P::kCodes; ++i) out.put(i, best[i]);
    out.store(y, static_cast<long long>(pixel) * P::kOutStored + channel);
  });
}

// multiplier, shift: one, or one for every pixel of the map.
template <class P>
__device__ __forceinline__ void average_pool(const void* x, const int* multiplier, const int* shift, void* y) {
  for_vector<P>([&](int pixel, int channel) {
    int sums[P::kCodes] = {};
    for_window<P>(x, pixel, channel, [&](const typename P::A& in) {
#pragma unroll
      for (int i = 0; i < P::kCodes; ++i) sums[i] += in[i] - P::kZeroA;
    });
    const int place = P::kOneCount ? 0 : pixel % (P::kOutHeight * P::kOutWidth), s = shift[place];
    typename P::Y out;
#pragma unroll
    for (int i = 0; i < P::kCodes; ++i)
      out.put(i, clamp<P>((static_cast<long long>(sums[i]) * multiplier[place] + (1LL << (s - 1))) >> s));
    out.store(y, static_cast<long long>(pixel) * P::kOutStored + channel);
  });
}

}  // namespace hawq
#endif
