#include "models/images/curve_chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/error.h"
#include "engine/number_text.h"
#include "engine/show/svg.h"

namespace fluxion {

namespace {

constexpr int margin_left = 64, margin_right = 22, panel_gap = 40;
constexpr std::size_t most_points =
    900;  // of a curve: more than the pixels it has show nothing more

constexpr const char* light =
    R"(  .panel { fill: #f8f9fb } .grid { stroke: #e3e6ec; stroke-width: 1 } .frame { stroke: #b4bac6; stroke-width: 1; fill: none }
  .raw { fill: none; stroke: #5b8fd6; stroke-width: 1; stroke-opacity: 0.38; stroke-linejoin: round }
  .smooth { fill: none; stroke: #2f5fc4; stroke-width: 2.2; stroke-linejoin: round; stroke-linecap: round }
  .last { fill: #2f5fc4 } .value { font-weight: 600; fill: #2f5fc4 }
)";
constexpr const char* dark =
    R"(    .panel { fill: #1b1f27 } .grid { stroke: #2b313c } .frame { stroke: #4a5262 }
    .raw { stroke: #7fb0f5; stroke-opacity: 0.34 } .smooth { stroke: #8dbaff } .last { fill: #8dbaff } .value { fill: #8dbaff }
)";

std::string piece(int value) { return std::to_string(value); }
std::string piece(double value) { return fixed_text(value, 1); }
std::string piece(const char* value) { return value; }

// The pattern with a value in place of each {}.
template <class... Values>
std::string filled(std::string_view pattern, const Values&... values) {
  std::string text;
  const auto add = [&](const std::string& value) {
    const std::size_t place = pattern.find("{}");
    text += std::string(pattern.substr(0, place)) + value;
    pattern.remove_prefix(place + 2);
  };
  (add(piece(values)), ...);
  return text + std::string(pattern);
}

// 12000 -> "12k", 0.05 -> "0.05", 3e-7 -> "3e-07".
std::string short_text(double value) {
  if (value == 0) return "0";
  const double size = std::abs(value);
  if (size >= 1e6 && size < 1e9) return rounded_text(value / 1e6, 4) + "M";
  if (size >= 1e4 && size < 1e6) return rounded_text(value / 1e3, 4) + "k";
  return rounded_text(value, 4);
}

// Of a tick among ticks this far apart: with as many digits as tell it from its neighbours.
std::string tick_text(double value, double apart) {
  const double digits =
      std::floor(std::log10(std::max(std::abs(value), apart)) - std::log10(apart)) + 2;
  if (digits <= 4 || std::abs(value) >= 1e4) return short_text(value);
  return rounded_text(value, static_cast<int>(std::min(digits, 15.0)));
}

struct Curve {
  std::vector<double> x, y;
};

// What is drawn of many values: of every stretch its mean (for the smooth curve), or its lowest and
// highest (for the raw one, which keeps its noise).
struct Reduced {
  Curve mean, range;
};

Reduced reduce(std::span<const double> x, std::span<const double> y) {
  Reduced result;
  std::vector<std::size_t> finite;
  for (std::size_t i = 0; i < y.size(); ++i)
    if (std::isfinite(y[i]) && std::isfinite(x[i])) finite.push_back(i);
  const std::size_t stretch = (finite.size() + most_points - 1) / most_points;
  for (std::size_t begin = 0; begin < finite.size(); begin += std::max<std::size_t>(stretch, 1)) {
    const std::size_t end = std::min(begin + stretch, finite.size());
    double sum_x = 0, sum_y = 0, low = std::numeric_limits<double>::infinity(), high = -low;
    for (std::size_t k = begin; k < end; ++k) {
      sum_x += x[finite[k]], sum_y += y[finite[k]];
      low = std::min(low, y[finite[k]]), high = std::max(high, y[finite[k]]);
    }
    const auto count = static_cast<double>(end - begin);
    result.mean.x.push_back(sum_x / count), result.mean.y.push_back(sum_y / count);
    result.range.x.push_back(sum_x / count), result.range.y.push_back(low);
    if (high > low) result.range.x.push_back(sum_x / count), result.range.y.push_back(high);
  }
  return result;
}

// A Gaussian average over neighbours, narrower towards the start, where values fall fast, and
// somewhat towards the end, so that it ends where they do.
Curve smooth(const Curve& curve, bool logarithmic) {
  Curve result;
  result.x = curve.x;
  const auto count = static_cast<std::ptrdiff_t>(curve.y.size());
  const double widest = std::max(1.0, static_cast<double>(count) / 60);
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    const double from_start = 0.5 + 0.5 * static_cast<double>(i),
                 from_end = 0.4 * widest + 0.5 * static_cast<double>(count - 1 - i);
    const double width = std::min({widest, from_start, from_end});
    const auto reach = static_cast<std::ptrdiff_t>(3 * width);
    double total = 0, weights = 0;
    for (std::ptrdiff_t k = std::max<std::ptrdiff_t>(0, i - reach);
         k <= std::min(count - 1, i + reach); ++k) {
      const double distance = static_cast<double>(k - i) / width,
                   weight = std::exp(-0.5 * distance * distance);
      const double value = curve.y[static_cast<std::size_t>(k)];
      total += weight * (logarithmic ? std::log(value) : value), weights += weight;
    }
    result.y.push_back(logarithmic ? std::exp(total / weights) : total / weights);
  }
  return result;
}

struct Axis {
  double low = 0, high = 1;
  bool logarithmic = false;
  double first = 0, last = 1;  // pixels of low and high
  double place(double value) const {
    const double part =
        logarithmic ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
    return first + part * (last - first);
  }
};

// Round numbers on the axis, some four to eight of them.
std::vector<double> ticks(const Axis& axis) {
  std::vector<double> result;
  if (axis.logarithmic) {
    const auto collect = [&](std::initializer_list<double> factors) {
      result.clear();
      for (double power = std::pow(10, std::floor(std::log10(axis.low))); power <= axis.high;
           power *= 10)
        for (const double factor : factors)
          if (factor * power >= axis.low * (1 - 1e-9) && factor * power <= axis.high * (1 + 1e-9))
            result.push_back(factor * power);
    };
    collect({1});
    if (result.size() < 4) collect({1, 3});
    if (result.size() < 4) collect({1, 2, 5});
    while (result.size() > 8) {
      std::vector<double> every_other;
      for (std::size_t i = 0; i < result.size(); i += 2) every_other.push_back(result[i]);
      result = every_other;
    }
    return result;
  }
  const double range = axis.high - axis.low;
  double step = std::pow(10, std::floor(std::log10(range / 4)));
  for (const double factor : {5.0, 2.5, 2.0})
    if (range / (factor * step) >= 4) {
      step *= factor;
      break;
    }
  const double first = std::ceil(axis.low / step - 1e-9);
  for (int i = 0; i <= 10 && (first + i) * step <= axis.high + 1e-9 * step; ++i)
    result.push_back((first + i) * step);
  return result;
}

Axis vertical_axis(const Curve& range, const Curve& smoothed) {
  Axis axis;
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const Curve* curve : {&range, &smoothed})
    for (const double value : curve->y) low = std::min(low, value), high = std::max(high, value);
  if (!(low <= high)) return axis;
  axis.logarithmic =
      low > 1e-200 && high < 1e200 && high / low > 8;  // far from where powers of ten end
  if (axis.logarithmic) {
    const double air = std::pow(high / low, 0.06);
    axis.low = low / air, axis.high = high * air;
  } else {
    // Values that differ by rounding alone are level.
    const double size = std::max(std::abs(high), std::abs(low));
    const double span = high - low > 1e-7 * size ? high - low : std::max(size, 1e-12);
    axis.low = low - 0.06 * span, axis.high = high + 0.06 * span;
    if (low >= 0 && low < 0.35 * high) axis.low = 0;
  }
  return axis;
}

std::string path_of(const Curve& curve, const Axis& x, const Axis& y, const char* kind) {
  std::string points;
  for (std::size_t i = 0; i < curve.x.size(); ++i)
    points += filled("{}{} {}", i == 0 ? "M" : "L", x.place(curve.x[i]),
                     y.place(std::clamp(curve.y[i], y.low, y.high)));
  return "<path class=\"" + std::string(kind) + "\" d=\"" + points + "\"/>\n";
}

}  // namespace

std::string curve_chart(std::span<const double> x, const std::vector<CurvePanel>& panels,
                        const CurveChartOptions& options) {
  for (const CurvePanel& panel : panels)
    if (panel.y.size() != x.size())
      throw ShapeError("curve_chart: '" + panel.label + "' has " + std::to_string(panel.y.size()) +
                       " values for " + std::to_string(x.size()) + " of x");
  const int top = options.title.empty() ? 34 : 66, bottom = 50;
  const int height = top + static_cast<int>(panels.size()) * (options.panel_height + panel_gap) -
                     panel_gap + bottom;
  Axis across{.low = 0,
              .high = 1,
              .first = margin_left,
              .last = static_cast<double>(options.width - margin_right)};
  if (!x.empty()) {
    // From 0, unless the values sit far from it.
    across.low = x.front() > 0 && x.front() <= 0.5 * x.back() ? 0 : x.front();
    across.high = x.back() > across.low ? x.back() : across.low + 1;
  }

  std::string svg;
  if (!options.title.empty()) svg += show::svg_text(margin_left, 26, options.title, "title");

  const std::vector<double> x_ticks = ticks(across);
  for (std::size_t p = 0; p < panels.size(); ++p) {
    const Reduced reduced = reduce(x, panels[p].y);
    const bool positive = std::all_of(reduced.mean.y.begin(), reduced.mean.y.end(),
                                      [](double value) { return value > 0; });
    const Axis unsmoothed = vertical_axis(reduced.range, {});
    const Curve smoothed = smooth(reduced.mean, positive && unsmoothed.logarithmic);
    Axis up = vertical_axis(reduced.range, smoothed);
    const int panel_top = top + static_cast<int>(p) * (options.panel_height + panel_gap),
              panel_bottom = panel_top + options.panel_height;
    up.first = panel_bottom, up.last = panel_top;
    const int width = options.width - margin_left - margin_right;
    svg += filled("<rect class=\"panel\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\n",
                  margin_left, panel_top, width, options.panel_height);
    const std::vector<double> y_ticks = ticks(up);
    for (const double tick : y_ticks) {
      const double y = up.place(tick);
      svg += filled(
                 "<path class=\"grid\" d=\"M{} {}h{}\"/><text x=\"{}\" y=\"{}\" "
                 "text-anchor=\"end\">",
                 margin_left, y, width, margin_left - 8, y + 4) +
             (up.logarithmic || y_ticks.size() < 2 ? short_text(tick)
                                                   : tick_text(tick, y_ticks[1] - y_ticks[0])) +
             "</text>\n";
    }
    for (const double tick : x_ticks) {
      svg += filled("<path class=\"grid\" d=\"M{} {}v{}\"/>\n", across.place(tick), panel_top,
                    options.panel_height);
      if (p + 1 == panels.size())
        svg += filled("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">", across.place(tick),
                      panel_bottom + 18) +
               short_text(tick) + "</text>\n";
    }
    if (!smoothed.x.empty()) {
      svg += path_of(reduced.range, across, up, "raw") + path_of(smoothed, across, up, "smooth");
      svg += filled("<circle class=\"last\" cx=\"{}\" cy=\"{}\" r=\"3.4\"/>\n",
                    across.place(smoothed.x.back()), up.place(smoothed.y.back()));
      svg += filled("<text class=\"value\" x=\"{}\" y=\"{}\" text-anchor=\"end\">",
                    options.width - margin_right, panel_top - 9) +
             short_text(smoothed.y.back()) + "</text>\n";
    }
    svg += filled("<rect class=\"frame\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\n",
                  margin_left, panel_top, width, options.panel_height);
    const std::string label = panels[p].label + (up.logarithmic ? " (log)" : "");
    svg += show::svg_text(margin_left, panel_top - 9, label, "label");
  }
  if (!options.x_label.empty())
    svg += show::svg_text((across.first + across.last) / 2, height - 12, options.x_label, {},
                          "text-anchor=\"middle\"");
  return show::svg_document(options.width, height, light, dark, svg);
}

}  // namespace fluxion
