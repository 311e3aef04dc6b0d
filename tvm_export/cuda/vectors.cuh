// Read and write several codes of a pixel at once, whatever their storage.
#ifndef HAWQ_VECTORS
#define HAWQ_VECTORS

namespace hawq {

// kCodes codes in a row: of 4 bits, two a byte, or one in an element of type T.
template <class T, bool kPacked, bool kSigned, int kCodes>
struct Codes {
  static constexpr int kCount = kCodes, kBits = kPacked ? 4 : 8 * sizeof(T), kBytes = kCount * kBits / 8;
  unsigned words[(kBytes + 3) / 4] = {};

  // Return the codes that begin at code `index` of memory, a multiple of kCount.
  static __device__ __forceinline__ Codes load(const void* memory, long long index) {
    const char* from = static_cast<const char*>(memory) + index * kBits / 8;
    Codes codes;
    if constexpr (kBytes >= 16) {
#pragma unroll
      for (int i = 0; i < kBytes / 16; ++i) {
        const int4 vector = reinterpret_cast<const int4*>(from)[i];
        codes.words[i * 4] = vector.x, codes.words[i * 4 + 1] = vector.y;
        codes.words[i * 4 + 2] = vector.z, codes.words[i * 4 + 3] = vector.w;
      }
    } else if constexpr (kBytes == 8) {
      const int2 vector = *reinterpret_cast<const int2*>(from);
      codes.words[0] = vector.x, codes.words[1] = vector.y;
    } else if constexpr (kBytes == 4) {
      codes.words[0] = *reinterpret_cast<const unsigned*>(from);
    } else {
      static_assert(kBytes == 2, "vectors of 2, 4, 8 or whole 16 bytes are loaded");
      codes.words[0] = *reinterpret_cast<const unsigned short*>(from);
    }
    return codes;
  }

  __device__ __forceinline__ void store(void* memory, long long index) const {
    char* to = static_cast<char*>(memory) + index * kBits / 8;
    const int* from = reinterpret_cast<const int*>(words);
    if constexpr (kBytes >= 16) {
#pragma unroll
      for (int i = 0; i < kBytes / 16; ++i)
        reinterpret_cast<int4*>(to)[i] = {from[i * 4], from[i * 4 + 1], from[i * 4 + 2], from[i * 4 + 3]};
    } else if constexpr (kBytes == 8) {
      *reinterpret_cast<int2*>(to) = {from[0], from[1]};
    } else if constexpr (kBytes == 4) {
      *reinterpret_cast<int*>(to) = from[0];
    } else if constexpr (kBytes == 2) {
      *reinterpret_cast<unsigned short*>(to) = static_cast<unsigned short>(words[0]);
    } else {
      *reinterpret_cast<unsigned char*>(to) = static_cast<unsigned char>(words[0]);
    }
  }

  __device__ __forceinline__ int operator[](int i) const {
    const unsigned high = words[i * kBits / 32] << (32 - kBits - i * kBits % 32);
    return kSigned ? static_cast<int>(high) >> (32 - kBits) : static_cast<int>(high >> (32 - kBits));
  }

  // Put a code where none has been put yet.
  __device__ __forceinline__ void put(int i, int code) {
    constexpr unsigned kMask = kBits < 32 ? (1u << kBits % 32) - 1 : ~0u;
    words[i * kBits / 32] |= (static_cast<unsigned>(code) & kMask) << i * kBits % 32;
  }
};

}  // namespace hawq
#endif
