// Charts of curves.
#include <cmath>
#include <limits>
#include <vector>

#include "engine/error.h"
#include "models/images/curve_chart.h"
#include "models/images/scatter.h"
#include "tests/catch.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

std::size_t occurrences(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_CASE(
    "a chart has a raw and a smooth curve a panel, and a logarithmic axis where values span much",
    "[chart]") {
  std::vector<double> x, falling, level;
  for (int i = 0; i < 500; ++i)
    x.push_back(i), falling.push_back(std::exp(-0.01 * i)), level.push_back(3 + std::sin(i));
  const std::string chart = curve_chart(x, {{"falling", falling}, {"level", level}},
                                        {.title = "a < b & c", .x_label = "step"});
  CHECK(occurrences(chart, "class=\"raw\"") == 2);
  CHECK(occurrences(chart, "class=\"smooth\"") == 2);
  CHECK(contains(chart, "falling (log)"));
  CHECK_FALSE(contains(chart, "level (log)"));
  CHECK(contains(chart, "a &lt; b &amp; c"));
  CHECK(contains(chart, ">400</text>"));
  CHECK(chart.ends_with("</svg>\n"));
  CHECK_FALSE(contains(chart, "nan"));
}

TEST_CASE("a chart of any number of any values is a picture of bounded size", "[chart]") {
  for (const std::size_t length : {0, 1, 2, 100000}) {
    std::vector<double> x, y;
    for (std::size_t i = 0; i < length; ++i) {
      x.push_back(static_cast<double>(i + 1));
      y.push_back(i % 7 == 3 ? std::numeric_limits<double>::quiet_NaN()
                             : 1e-30 * static_cast<double>(i % 1000));
    }
    const std::string chart = curve_chart(x, {{"y", y}});
    INFO(length);
    CHECK(chart.size() < 100000);
    CHECK_FALSE(contains(chart, "nan"));
    CHECK_FALSE(contains(chart, "inf\""));
  }
  const std::vector<double> x = {1, 2}, same = {0.5, 0.5}, zero = {0, 0}, negative = {-1, 5},
                            rounding = {1, std::nextafter(1.0, 2.0)};
  const std::vector<double> huge = {1e300, 2e300}, tiny = {1e-300, 2e-300}, wide = {1e-300, 1e300};
  for (const auto& y : {same, zero, negative, rounding, huge, tiny, wide})
    CHECK_FALSE(contains(curve_chart(x, {{"y", y}}), "nan"));
  CHECK_THROWS_AS(curve_chart(x, {{"y", {}}}), ShapeError);
}

TEST_CASE("paths are drawn from noise to sample, and what is not finite is left out", "[chart]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  // Two paths of three states; the second is broken.
  const std::vector<float> paths = {-1, -1, 0, 0, 0, 0, nan, 0, 1, 1, 2, 2}, broken(12, nan);
  const ScatterOptions options{.panel_size = 100, .low = -2, .high = 2};
  const Image drawn = scatter_plot({{.paths = paths, .states = 3}}, options),
              empty = scatter_plot({{.paths = broken, .states = 3}}, options);
  CHECK(drawn.pixels.size() == empty.pixels.size());
  CHECK(drawn.pixels != empty.pixels);
  CHECK_THROWS_AS(scatter_plot({{.paths = paths, .states = 1}}), ShapeError);
  CHECK_THROWS_AS(scatter_plot({{.paths = paths, .states = 4}}), ShapeError);
}
