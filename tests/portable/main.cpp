// fluxion-portable GRAPH [--write FILE] [--compare FILE]
//
// Whether this build does on its system what it should: every op and some networks on the CPU
// against the reference backend, a stored graph, files, errors and numbers as text. --write stores
// what the CPU computed; --compare says how far that is from what another system stored, and fails
// where it is further than the CPU may be from the reference. Plain C++: no test framework has to
// be built for the target.
#include <cstdio>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backends/cpu/cpu.h"
#include "backends/open_device.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/export/stored_graph.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "engine/platform/file.h"
#include "engine/platform/machine.h"
#include "tests/op_examples.h"
#include "tests/portable/networks.h"
#include "tests/portable/values.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

int checks = 0, failures = 0;

void check(bool passed, const std::string& what) {
  ++checks;
  if (passed) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}

void check_text(const std::string& got, const std::string& expected) {
  check(got == expected, "got \"" + got + "\", expected \"" + expected + "\"");
}

// One number for some values, equal only where all bits are (FNV-1a, 64 bits).
class Checksum {
 public:
  void add(const Tensor& tensor) {
    for (const std::byte byte : host_bytes(tensor))
      state_ = (state_ ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3;
  }
  std::string text() const {
    char text[20];
    std::snprintf(text, sizeof text, "%08x%08x", static_cast<unsigned>(state_ >> 32),
                  static_cast<unsigned>(state_ & 0xffffffff));
    return text;
  }

 private:
  std::uint64_t state_ = 0xcbf29ce484222325;
};

// Adds the results to `all`; integers and bits are part of the comparison too.
void keep(std::vector<NamedValues>& all, const std::string& name, DType dtype,
          const std::vector<Tensor>& results) {
  for (std::size_t i = 0; i < results.size(); ++i)
    all.push_back({name + " in " + std::string(to_string(dtype)) + ", result " + std::to_string(i),
                   results[i].dtype(), host_values(results[i])});
}

void every_op(const Device& device, const Device& expected, std::vector<NamedValues>& all) {
  Checksum sum;
  for (const DType dtype : {DType::f32, DType::f64})
    for (const OpExample& example : op_examples()) {
      const std::string differs = difference(example, device, expected, dtype);
      check(differs.empty(), differs);
      if (!differs.empty()) continue;
      const std::vector<Tensor> results = example.f(to_tensors(example.inputs, device, dtype));
      for (const Tensor& result : results) sum.add(result);
      keep(all, example.label, dtype, results);
    }
  std::printf("every op: %zu examples, checksum %s\n", op_examples().size(), sum.text().c_str());
}

void networks(const Device& device, const Device& threaded, const Device& expected,
              std::vector<NamedValues>& all) {
  for (const PortableNetwork& network : portable_networks()) {
    const std::string name = network.name + " in " + std::string(to_string(network.dtype));
    const std::vector<Tensor> got = network.make(device, network.dtype);
    const std::vector<Tensor> wanted = network.make(expected, network.dtype);
    const std::vector<Tensor> also = network.make(threaded, network.dtype);
    std::vector<NamedValues> mine, reference_values, theirs;
    keep(mine, network.name, network.dtype, got);
    keep(reference_values, network.name, network.dtype, wanted);
    keep(theirs, network.name, network.dtype, also);
    double largest = 0;
    for (const auto* values : {&mine, &theirs}) {
      const Comparison comparison = compare(*values, reference_values);
      for (const std::string& wrong : comparison.wrong) check(false, name + ": " + wrong);
      check(comparison.largest <= network.tolerance,
            name + ": " + comparison.largest_in + " is " + rounded_text(comparison.largest, 3) +
                " epsilon from the reference, of at most " + rounded_text(network.tolerance, 3));
      largest = std::max(largest, comparison.largest);
    }
    Checksum sum;
    for (const Tensor& result : got) sum.add(result);
    std::printf("%s: %s epsilon from the reference, checksum %s\n", name.c_str(),
                rounded_text(largest, 2).c_str(), sum.text().c_str());
    all.insert(all.end(), mine.begin(), mine.end());
  }
}

// Its results come in two halves that must agree: computed here, and stored when it was written.
void stored_graph(const std::string& path, const Device& device) {
  const StoredGraph stored = load_graph(path);
  const std::vector<Tensor> results = call(stored, {}, device);
  const std::size_t half = results.size() / 2;
  for (std::size_t i = 0; i < half; ++i) {
    const std::string differs = difference(results[i], results[half + i], 1e-4, 1e-4);
    check(differs.empty(), "stored graph, output " + std::to_string(i) + ": " + differs);
  }
  const MappedFile file(path);
  const std::vector<std::byte> again = serialise(stored);
  check(again.size() == file.bytes().size() &&
            std::memcmp(again.data(), file.bytes().data(), again.size()) == 0,
        "the stored graph is not written as it was read");
  std::printf("stored graph: %zu bytes, %zu results\n", again.size(), half);
}

void compiled(const Device& device) {
  const auto step = compile([](const Tensor& x, const Tensor& rate) { return x - rate * tanh(x); },
                            {.donate = {0}});
  const auto plain = [](const Tensor& x, const Tensor& rate) { return x - rate * tanh(x); };
  Tensor state = random_tensor({3, 41}, device, 20), expected = random_tensor({3, 41}, device, 20);
  for (int number = 0; number < 5; ++number) {
    const Tensor rate = full({}, 0.25 / (number + 1), DType::f32, device);
    state = step(state, rate);
    expected = plain(expected, rate);
    eval(expected);
  }
  check(host_bytes(state) == host_bytes(expected),
        "a compiled step differs from an uncompiled one");
  std::stop_source source;
  source.request_stop();
  RunOptions options;
  options.cancel = source.get_token();
  try {
    step.run(options, state, full({}, 1, DType::f32, device));
    check(false, "a cancelled call returned");
  } catch (const Cancelled&) {
    check(host_bytes(state) == host_bytes(expected), "a cancelled call took its argument");
  }
}

void errors(const Device& device) {
  const Tensor x = zeros({2, 3}, DType::f32, device);
  try {
    matmul(x, x);
    check(false, "a product that does not fit was accepted");
  } catch (const ShapeError& error) {
    const std::string line = "main.cpp:" + std::to_string(__LINE__ - 3);
    check(std::string(error.what()).find(line) != std::string::npos,
          "an error does not name the caller's " + line + ": " + error.what());
  }
  try {
    eval(zeros({std::int64_t{1} << 49}, DType::u8, device));
    check(false, "a tensor larger than any address space was made");
  } catch (const Error&) {
    check(true, "");
  }
  // Together more than a 32-bit address can say, each less.
  try {
    std::vector<Tensor> many;
    const Tensor one = zeros({std::int64_t{1} << 29}, DType::u8, device);
    for (int number = 0; sizeof(void*) == 4 && number < 9; ++number)
      many.push_back(one + static_cast<double>(number));
    if (!many.empty()) {
      eval(many);
      check(false, "4.5 GiB were made where addresses have 32 bits");
    }
  } catch (const Error&) {
    check(true, "");
  }
  try {
    open_device("vulkan");
    std::printf("vulkan: there is a device\n");
  } catch (const DeviceError& error) {
    std::printf("%s\n", error.what());
  }
}

void number_texts() {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const std::pair<double, const char*> shortest[] = {
      {0, "0"},
      {-0.0, "-0"},
      {1, "1"},
      {-2.5, "-2.5"},
      {0.1, "0.1"},
      {1e-5, "1e-05"},
      {1e5, "1e+05"},
      {123456, "123456"},
      {1e22, "1e+22"},
      {0.0001, "1e-04"},
      {0.001, "0.001"},
      {100, "100"},
      {1.0 / 3, "0.3333333333333333"},
      {infinity, "inf"},
      {-infinity, "-inf"},
      {5e-324, "5e-324"},
      {1.7976931348623157e308, "1.7976931348623157e+308"}};
  for (const auto& [value, text] : shortest) {
    check_text(number_text(value), text);
    check(parse_number<double>(text) == value, std::string(text) + " is read as another number");
  }
  check_text(number_text(0.1f), "0.1");
  check_text(number_text(16777216.0f), "16777216");
  check_text(number_text(std::numeric_limits<double>::quiet_NaN()), "nan");
  check_text(fixed_text(2.0 / 3, 3), "0.667");
  check_text(rounded_text(123456.0, 3), "1.23e+05");
  check_text(scientific_text(0.00012345, 2), "1.23e-04");
  check(parse_number<double>("1e-3") == 1e-3 && parse_number<float>("0.1") == 0.1f &&
            parse_number<double>(".5") == 0.5 && parse_number<double>("-5.") == -5.0,
        "numbers are read as others");
  for (const char* const text : {"", " 1", "1 ", "+1", "0x10", "1e999", "-", "1e", "e5", "1,5"})
    check(!parse_number<double>(text), "'" + std::string(text) + "' is read as a number");
  check(parse_number<int>("-17") == -17 && !parse_number<int>("17.0"), "integers");
}

void files() {
  const std::filesystem::path path = "fluxion-portable.part";
  for (const std::string_view text : {"first", "", "second, longer"}) {
    replace_file(path, text);
    const MappedFile file(path);
    check(std::string_view(reinterpret_cast<const char*>(file.bytes().data()),
                           file.bytes().size()) == text,
          "a file holds something else than was written");
    check(!file.cut_short(), "a whole file counts as cut short");
  }
  std::filesystem::remove(path);
  try {
    const MappedFile missing("no/such/file");
    check(false, "a missing file was opened");
  } catch (const IoError& error) {
    check(std::string(error.what()).find("no/such/file") != std::string::npos ||
              std::string(error.what()).find("no\\such\\file") != std::string::npos,
          std::string("an error does not name its file: ") + error.what());
  }
  try {
    replace_file("no/such/folder/file", std::string_view("x"));
    check(false, "a file was written where there is no folder");
  } catch (const IoError&) {
    check(true, "");
  }
}

int run(const std::vector<std::string>& arguments) {
  std::optional<std::string> graph, write, other;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const bool more = i + 1 < arguments.size();
    if (arguments[i] == "--write" && more) {
      write = arguments[++i];
    } else if (arguments[i] == "--compare" && more) {
      other = arguments[++i];
    } else if (!graph && !arguments[i].starts_with("-")) {
      graph = arguments[i];
    } else {
      throw Error("wants GRAPH [--write FILE] [--compare FILE], got '" + arguments[i] + "'");
    }
  }
  const Device expected = reference(), device = cpu({.threads = 1}), threaded = cpu({.threads = 3});
  std::printf("%s, %zu-byte pointers, %d processors\n", threaded.name().c_str(), sizeof(void*),
              usable_cpus());
  std::vector<NamedValues> all;
  every_op(device, expected, all);
  networks(device, threaded, expected, all);
  if (graph) stored_graph(*graph, device);
  compiled(device);
  errors(device);
  number_texts();
  files();
  if (write) write_values(*write, all);
  if (other) {
    const Comparison comparison = compare(all, read_values(*other));
    for (const std::string& wrong : comparison.wrong) check(false, wrong);
    std::printf("compared with %s: of %zu floating values %zu differ, by up to %s epsilon (%s)\n",
                other->c_str(), comparison.values, comparison.different,
                rounded_text(comparison.largest, 3).c_str(), comparison.largest_in.c_str());
    check(comparison.largest <= 128, "two systems are further apart than that");
  }
  std::printf("%d checks, %d failed\n", checks, failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return run({arguments + 1, arguments + count});
  } catch (const std::exception& error) {
    std::printf("fluxion-portable: %s\n", error.what());
    return 1;
  }
}
