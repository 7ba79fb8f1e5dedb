// SPDX-License-Identifier: Apache-2.0
// main() for a fuzz target without libFuzzer: an ordinary, deterministic test with any compiler.
//
//   thing_fuzz CORPUS_DIR [MUTATIONS [SEED]]
//
// Runs the empty input, every file of the corpus in order of name, then a seeded stream of
// mutations of them (MUTATIONS in all, 20,000 unless told). A finding is a crash of the process;
// the input that did it is then in the file named by the last line on stderr. Does not look for
// coverage: script/fuzz does.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/prng.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Input = std::vector<uint8_t>;

constexpr size_t kInputBytesMax = 65536;
const Input* running = nullptr;  // For the signal handler.

// Keeps the input that crashed; only calls that are safe in a signal handler.
void keep_input(int signal) {
  const char path[] = "fuzz-crash.bin";
  const int fd = ::open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
  if (fd >= 0 && running != nullptr && ::write(fd, running->data(), running->size()) >= 0) {
    const char text[] = "the input that did this is in fuzz-crash.bin\n";
    [[maybe_unused]] const ssize_t told = ::write(STDERR_FILENO, text, sizeof(text) - 1);
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void run(const Input& input) {
  // An exact allocation, so that a sanitizer sees the first byte past the end.
  const Input exact(input.begin(), input.end());
  running = &exact;
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
  running = nullptr;
}

std::vector<Input> corpus_in(const std::string& directory) {
  std::vector<Input> inputs{{}};
  if (!std::filesystem::is_directory(directory)) return inputs;
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.is_regular_file()) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return inputs;
}

// The numbers that break length checks.
constexpr uint64_t kEdges[] = {0,          1,          0x7f,       0x80,       0xff,
                               0x7fff,     0x8000,     0xffff,     0x7fffffff, 0x80000000,
                               0xffffffff, INT64_MAX,  1ULL << 63, UINT64_MAX, UINT64_MAX - 4095,
                               4096,       1ULL << 20, 1ULL << 46};

void overwrite_number(Input& input, size_t at, firn::Prng& prng) {
  const uint64_t edge = kEdges[prng.below(std::size(kEdges))];
  const size_t width = size_t{1} << prng.below(4);
  const bool big_endian = prng.one_in(2);
  for (size_t i = 0; i < width && at + i < input.size(); ++i) {
    const size_t byte = big_endian ? width - 1 - i : i;
    input[at + i] = static_cast<uint8_t>(edge >> (8 * byte));
  }
}

void mutate_once(Input& input, const std::vector<Input>& corpus, firn::Prng& prng) {
  const size_t at = input.empty() ? 0 : prng.below(input.size());
  const auto place = input.begin() + static_cast<ptrdiff_t>(at);
  switch (prng.below(7)) {
    case 0:  // Cut the tail.
      input.resize(at);
      return;
    case 1:  // Put a byte in.
      input.insert(place, static_cast<uint8_t>(prng.next()));
      return;
    case 2: {  // Go on as another input does.
      const Input& other = corpus[prng.below(corpus.size())];
      if (at < other.size()) {
        input.resize(at);
        input.insert(input.end(), other.begin() + static_cast<ptrdiff_t>(at), other.end());
      }
      return;
    }
    case 3:
      if (!input.empty()) input[at] ^= static_cast<uint8_t>(1U << prng.below(8));
      return;
    case 4:
      if (!input.empty()) input[at] = static_cast<uint8_t>(prng.next());
      return;
    case 5:
      overwrite_number(input, at, prng);
      return;
    default: {  // Take some bytes out.
      const size_t count = std::min<size_t>(input.size() - at, 1 + prng.below(8));
      input.erase(place, place + static_cast<ptrdiff_t>(count));
      return;
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    std::fprintf(stderr, "usage: %s CORPUS_DIR [MUTATIONS [SEED]]\n", arguments[0]);
    return 2;
  }
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) {
    std::signal(signal, keep_input);
  }
  const std::vector<Input> corpus = corpus_in(arguments[1]);
  const uint64_t mutations = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 20000;
  firn::Prng prng(count > 3 ? std::strtoull(arguments[3], nullptr, 10) : 1);
  for (const Input& input : corpus) run(input);
  for (uint64_t i = 0; i < mutations; ++i) {
    Input input = corpus[prng.below(corpus.size())];
    for (uint64_t changes = 1 + prng.below(4); changes > 0; --changes) {
      mutate_once(input, corpus, prng);
    }
    if (input.size() > kInputBytesMax) input.resize(kInputBytesMax);
    run(input);
  }
  std::printf("%zu inputs of the corpus, %llu mutations: nothing found\n", corpus.size() - 1,
              static_cast<unsigned long long>(mutations));
  return 0;
}
