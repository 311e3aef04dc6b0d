// Run an exported library from C++: one batch of prepared images in, the integers of every output out.
//
// A line for each output of each image: number of the image, name of the output, place of the highest integer (the best
// class), and the integers in the order (C, H, W).
//
//   hawq run DIR a.png --raw images.bin             # writes what the library takes: float32 or uint8, (N, C, H, W)
//   ./run_library DIR images.bin
//
// Build (docs/deploy.md): g++ -std=c++17 run_library.cpp $(tvm-ffi-config --cxxflags) -L LIBS
//   -Wl,--no-as-needed -ltvm_runtime -ltvm_ffi -Wl,-rpath,LIBS -o run_library
// For a CUDA library link -ltvm_runtime_cuda too.
#include <tvm/ffi/extra/json.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/tvm_ffi.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <numeric>

namespace ffi = tvm::ffi;
using Object = ffi::json::Object;
using Numbers = ffi::json::Array;

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

// Return the integers of one image, channels outermost, of a tensor (N, H, W, stored channels) of 16 or 32 bits.
std::vector<int64_t> codes(const ffi::Tensor& stored, int64_t image, int64_t channels, bool with_sign) {
  std::vector<char> bytes(ffi::GetDataSize(stored));
  ffi::Function::GetGlobalRequired("runtime.TVMTensorCopyToBytes")(stored, static_cast<void*>(bytes.data()),
                                                                   bytes.size());
  const int64_t pixels = stored.size(1) * stored.size(2), row = stored.size(3);
  std::vector<int64_t> found;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      const int64_t place = (image * pixels + pixel) * row + c;
      const auto* shorts = reinterpret_cast<const int16_t*>(bytes.data());
      found.push_back(stored.dtype().bits == 32 ? reinterpret_cast<const int32_t*>(bytes.data())[place]
                      : with_sign              ? shorts[place]
                                               : static_cast<uint16_t>(shorts[place]));
    }
  return found;
}

int main(int count, char** words) try {
  if (count != 3) throw std::runtime_error("usage: run_library DIR IMAGES.bin");
  const std::string folder = words[1];
  std::string images = read(words[2]);
  const auto manifest = ffi::json::Parse(read(folder + "/manifest.json")).cast<Object>();
  const auto image = manifest["image"].cast<Object>();
  const auto outputs = manifest["outputs"].cast<Object>();
  const DLDataType type = ffi::StringToDLDataType(image["dtype"].cast<ffi::String>());
  std::vector<int64_t> shape{manifest["most"].cast<int64_t>()};
  for (const auto& length : image["shape"].cast<Numbers>()) shape.push_back(length.cast<int64_t>());
  if (manifest["batch"] == nullptr) {  // any number of images: as many as there are
    const int64_t bytes = std::accumulate(shape.begin() + 1, shape.end(), type.bits / 8, std::multiplies<int64_t>());
    shape[0] = std::clamp<int64_t>(images.size() / bytes, 1, shape[0]);
  }
  const bool cuda = manifest["target"].cast<ffi::String>() == "cuda";
  const DLDevice device{cuda ? kDLCUDA : kDLCPU, 0};
  const auto global = [](const char* name) { return ffi::Function::GetGlobalRequired(name); };
  const auto input = global("runtime.TVMTensorAllocWithScope")(ffi::Shape(shape), type, device, nullptr)
                         .cast<ffi::Tensor>();
  if (const auto size = ffi::GetDataSize(input); images.size() != size)
    throw std::runtime_error(std::string(words[2]) + " has " + std::to_string(images.size()) +
                             " bytes, the library's batch takes " + std::to_string(size));
  global("runtime.TVMTensorCopyFromBytes")(input, static_cast<void*>(images.data()), images.size());

  auto library = ffi::Module::LoadFromFile(folder + "/model.so");
  auto machine = library->GetFunction("vm_load_executable").value()().cast<ffi::Module>();
  const auto begin = machine->GetFunction("vm_initialization").value();
  constexpr int kPooled = 2;  // TVM's allocator that keeps memory between calls
  if (cuda) begin(int(kDLCUDA), 0, kPooled, int(kDLCPU), 0, kPooled); else begin(int(kDLCPU), 0, kPooled);

  const auto results = machine->GetFunction("main").value()(input).cast<ffi::Array<ffi::Tensor>>();
  for (int64_t n = 0; n < shape[0]; ++n) {
    size_t index = 0;
    for (const auto& [name, output] : outputs) {
      const auto kind = manifest["storage"].cast<Object>()[output.cast<Object>()["tensor"]].cast<Object>();
      const auto channels = kind["shape"].cast<Numbers>()[0].cast<int64_t>();
      const auto integers = codes(results[index++], n, channels, kind["signed"].cast<bool>());
      std::cout << n << ' ' << name.cast<ffi::String>() << ' '
                << std::max_element(integers.begin(), integers.end()) - integers.begin() << ':';
      for (const auto integer : integers) std::cout << ' ' << integer;
      std::cout << '\n';
    }
  }
} catch (const std::exception& error) {
  std::cerr << "error: " << error.what() << '\n';
  return 1;
}
