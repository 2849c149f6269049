// A main() for the fuzz targets where libFuzzer is absent, so that they are built and run with every test run.
//
//   fuzz_pgoutput <mutation count> <corpus file>...
//
// Runs every corpus file, every prefix of it, and then the given number of mutations. The generator has a fixed seed:
// the same corpus in the same order gives the same inputs on every machine.
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Input = std::vector<std::uint8_t>;

// The copy has exactly the size of the input, so that the address sanitizer sees a read of even one byte too many.
void run(const Input& input, std::size_t size) {
  const auto exact = std::make_unique<std::uint8_t[]>(size);
  std::copy_n(input.begin(), size, exact.get());
  static_cast<void>(LLVMFuzzerTestOneInput(exact.get(), size));
}

// std::uniform_int_distribution may differ between libraries; the bias of a remainder does no harm here.
std::size_t below(std::mt19937_64& random, std::size_t limit) {
  return static_cast<std::size_t>(random() % limit);
}

void mutate(Input& input, std::mt19937_64& random) {
  const std::size_t position = input.empty() ? 0 : below(random, input.size());
  switch (below(random, 6)) {
    case 0:  // flip one bit
      if (!input.empty()) input[position] = static_cast<std::uint8_t>(input[position] ^ (1U << below(random, 8)));
      break;
    case 1:  // truncate
      input.resize(position);
      break;
    case 2:  // overwrite with a byte that lengths and counts do not like
      if (!input.empty()) input[position] = std::vector<std::uint8_t>{0x00, 0x01, 0x7F, 0x80, 0xFF}[below(random, 5)];
      break;
    case 3:  // overwrite with anything
      if (!input.empty()) input[position] = static_cast<std::uint8_t>(random());
      break;
    case 4:  // insert
      input.insert(input.begin() + static_cast<std::ptrdiff_t>(position), static_cast<std::uint8_t>(random()));
      break;
    default:  // remove
      if (!input.empty()) input.erase(input.begin() + static_cast<std::ptrdiff_t>(position));
      break;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() < 2) {
    std::fputs("usage: <mutation count> <corpus file>...\n", stderr);
    return 1;
  }
  const std::string& count = arguments.front();
  std::size_t mutation_count = 0;
  const auto [stopped_at, error] = std::from_chars(count.data(), count.data() + count.size(), mutation_count);
  if (error != std::errc{} || stopped_at != count.data() + count.size()) {
    std::fputs("the mutation count is not a number\n", stderr);
    return 1;
  }

  std::vector<Input> corpus;
  std::size_t run_count = 0;
  for (std::size_t index = 1; index < arguments.size(); ++index) {
    std::ifstream file(arguments[index], std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "cannot read %s\n", arguments[index].c_str());
      return 1;
    }
    const Input& input = corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    for (std::size_t size = 0; size <= input.size(); ++size, ++run_count) run(input, size);
  }

  std::mt19937_64 random(20'000'101);
  for (std::size_t round = 0; round < mutation_count; ++round, ++run_count) {
    Input input = corpus[below(random, corpus.size())];
    const std::size_t step_count = 1 + below(random, 4);
    for (std::size_t step = 0; step < step_count; ++step) mutate(input, random);
    run(input, input.size());
  }
  std::printf("%zu corpus files, %zu inputs\n", corpus.size(), run_count);
  return 0;
}
