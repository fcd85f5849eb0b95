// A program around the library may have set a locale in which a half is 0,5 and a thousand 1.000.
// What the library writes, reads and says is the same under every locale.
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <locale>
#include <sstream>

#include "autograd/check.h"
#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "engine/plan/graph.h"
#include "engine/platform/usage.h"
#include "engine/show/graph_picture.h"
#include "engine/show/markup.h"
#include "models/images/curve_chart.h"
#include "models/model_file.h"
#include "models/optimisers/schedule.h"
#include "models/training/log.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// Decimal commas and grouped thousands, for what streams are made of ..
struct CommaFacet : std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};

// .. and for what C prints, where the system has German or can make it.
class CommaLocale {
 public:
  CommaLocale() : c_before_(std::setlocale(LC_ALL, nullptr)) {
    if (!std::setlocale(LC_ALL, "de_DE.UTF-8")) {
      const std::string command = "localedef -i de_DE -f UTF-8 '" +
                                  (folder_ / "de_DE.UTF-8").string() + "' >/dev/null 2>&1";
      if (std::system(command.c_str()) == 0) {
        ::setenv("LOCPATH", folder_.path().c_str(), 1);
        std::setlocale(LC_ALL, "de_DE.UTF-8");
        ::unsetenv("LOCPATH");
      }
    }
    before_ = std::locale::global(std::locale(std::locale(), new CommaFacet));
  }
  ~CommaLocale() {
    std::locale::global(before_);
    std::setlocale(LC_ALL, c_before_.c_str());
  }

  // Whether C itself writes a half as 0,5 now.
  bool in_c() const {
    char text[8] = {};
    std::snprintf(text, sizeof text, "%.1f", 0.5);
    return std::string(text) == "0,5";
  }

 private:
  ScratchFolder folder_;
  std::string c_before_;
  std::locale before_;
};

std::string log_text() {
  const ScratchFolder folder;
  const auto path = folder / "log.csv", resumed = folder / "resumed.csv";
  {
    TrainingLog log(path, 0, {});
    log.add({1500, 1234.5678, 0.125, 2e-7, 1234567.5, 1e-4, 1234.56});
    log.add({3000, 2.5, std::numeric_limits<double>::quiet_NaN(), 1, 2, 3e-4, 0});
  }
  TrainingLog again(resumed, 5000, path);
  again.add({5000, 3, 1, 1, 1, 1, 1});
  std::ifstream file(resumed);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str() + std::to_string(again.rows().size()) + " rows, the first with " +
         number_text(again.rows().at(0).seconds);
}

// Whatever the library says in numbers.
std::vector<std::string> said() {
  const Device device = cpu({.threads = 1});
  const Tensor x = Tensor::from(std::vector<double>{0.5, 1234.5}, {2}, device);
  const Tensor y = pad(2.5 * x, {1}, {1}, 0.25);
  const std::vector<double> steps = {0, 0.5, 1500, 2500}, values = {0.1, 0.25, 1e-5, 12345.5};
  Model model;
  model.info.network = MlpConfig{};
  model.info.guidance = TrainedGuidance{.omega = 1.5, .kappa = 0.5};
  const auto wrong_derivative = check_derivatives(
      [](const std::vector<Tensor>& in) {
        return std::vector<Tensor>{stop_gradient(in[0]) * 1.5 + in[0]};
      },
      {x});
  return {number_text(0.1),
          number_text(1e300),
          fixed_text(1234567.891, 2),
          rounded_text(1234567.891, 9),
          scientific_text(0.00123, 2),
          number_text(parse_number<double>("1234.5").value_or(-1)),
          number_text(parse_number<double>("1,5").value_or(-1)),
          log_text(),
          to_string(std::span<const Tensor>(&y, 1)),
          show::coordinate(1234.56),
          show::bytes_text(1536),
          curve_chart(steps, {{"loss", values}}, {.title = "a chart", .x_label = "steps"}),
          wrong_derivative.message,
          to_string(MemoryReport{.arena_bytes = 123456789}),
          message_of([&] { check(Schedule{.learning_rate = -0.5}); }),
          message_of([&] { full({2}, 1.5, DType::i32, device); }),
          message_of([&] { check_guidance(model.info, 2.5); }),
          resident_memory() ? "measured" : "not measured"};
}

}  // namespace

TEST_CASE("what is written and read does not depend on the locale", "[locale]") {
  const std::vector<std::string> expected = said();
  std::vector<std::string> got;
  {
    const CommaLocale commas;
    if (!commas.in_c()) WARN("no German locale here, and none can be made (package locales)");
    got = said();
  }
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CHECK(got[i] == expected[i]);
    CHECK(expected[i] != "");
  }
  CHECK(expected[2] == "1234567.89");
  CHECK(expected[7].find("\n1500,1234.568,0.125,2e-07,1234567.5,0.0001,1234.6\n") !=
        std::string::npos);
}

TEST_CASE("a text is a number as a whole or not at all", "[locale]") {
  CHECK(parse_number<double>("0.5") == 0.5);
  CHECK(parse_number<double>("-1e-3") == -1e-3);
  CHECK(parse_number<std::int64_t>("-12") == -12);
  for (const char* text : {"", " 1", "1 ", "1,5", "1.5x", "+1", "1e999"}) {
    INFO("'" << text << "'");
    CHECK(!parse_number<double>(text));
  }
  CHECK(!parse_number<std::int32_t>("2147483648"));
  CHECK(!parse_number<std::int32_t>("1.0"));
}
