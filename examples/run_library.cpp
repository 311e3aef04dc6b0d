// Run an exported library from C++: one batch of prepared images in, integer logits and the best class of each out.
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

int main(int count, char** words) try {
  if (count != 3) throw std::runtime_error("usage: run_library DIR IMAGES.bin");
  const std::string folder = words[1];
  std::string images = read(words[2]);
  const auto manifest = ffi::json::Parse(read(folder + "/manifest.json")).cast<Object>();
  const auto image = manifest["image"].cast<Object>();
  const auto output = manifest["storage"].cast<Object>()[manifest["output"]].cast<Object>();
  const auto classes = output["shape"].cast<Numbers>()[0].cast<int64_t>();
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

  const auto stored = machine->GetFunction("main").value()(input).cast<ffi::Tensor>();  // (N, 1, 1, padded classes)
  std::vector<int32_t> logits(stored.numel());
  global("runtime.TVMTensorCopyToBytes")(stored, static_cast<void*>(logits.data()), logits.size() * sizeof(int32_t));
  for (auto first = logits.begin(); first != logits.end(); first += stored.size(3)) {
    std::cout << std::max_element(first, first + classes) - first << ":";
    for (auto logit = first; logit != first + classes; ++logit) std::cout << ' ' << *logit;
    std::cout << '\n';
  }
} catch (const std::exception& error) {
  std::cerr << "error: " << error.what() << '\n';
  return 1;
}
