#include "engine/show/svg.h"

namespace fluxion::show {

namespace {

constexpr std::string_view shared_light = R"(  .paper { fill: #ffffff }
  text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif;)"
                                          R"( font-size: 12px; fill: #5b6270 }
  .title { font-size: 15px; font-weight: 600; fill: #22262e } .label { font-size: 13px;)"
                                          R"( font-weight: 600; fill: #3b414d }
)";
constexpr std::string_view shared_dark =
    R"(    .paper { fill: #15181e } text { fill: #a3abba } .title { fill: #eef1f6 } )"
    R"(.label { fill: #ccd3df }
)";

std::string attribute(std::string_view name, double value) {
  return " " + std::string(name) + "=\"" + coordinate(value) + "\"";
}
std::string of_class(std::string_view css_class) {
  return css_class.empty() ? "" : " class=\"" + std::string(css_class) + "\"";
}

}  // namespace

std::string svg_document(double width, double height, std::string_view light, std::string_view dark,
                         std::string_view body) {
  const std::string w = coordinate(width), h = coordinate(height);
  std::string svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + w + " " + h +
                    "\" width=\"" + w + "\" height=\"" + h + "\" role=\"img\">\n<style>\n";
  svg.append(shared_light)
      .append(light)
      .append("  @media (prefers-color-scheme: dark) {\n")
      .append(shared_dark)
      .append(dark);
  svg +=
      "  }\n</style>\n<rect class=\"paper\" width=\"" + w + "\" height=\"" + h + "\" rx=\"6\"/>\n";
  return svg.append(body).append("</svg>\n");
}

std::string svg_text(double x, double y, std::string_view text, std::string_view css_class,
                     std::string_view attributes) {
  std::string result = "<text" + of_class(css_class) + attribute("x", x) + attribute("y", y);
  if (!attributes.empty()) result.append(" ").append(attributes);
  return result + ">" + xml_escaped(text) + "</text>\n";
}

std::string svg_rect(double x, double y, double width, double height, std::string_view css_class,
                     double radius) {
  return "<rect" + of_class(css_class) + attribute("x", x) + attribute("y", y) +
         attribute("width", width) + attribute("height", height) +
         (radius > 0 ? attribute("rx", radius) : "") + "/>\n";
}

std::string svg_path(const LayeredLine& line, std::string_view css_class) {
  std::string path = "<path" + of_class(css_class) + " d=\"M" + coordinate(line.begin.x) + " " +
                     coordinate(line.begin.y);
  if (line.leave_y > line.begin.y) path += "V" + coordinate(line.leave_y);
  const double middle = (line.leave_y + line.arrive_y) / 2;
  if (line.begin.x == line.end.x) {
    path += "V" + coordinate(line.end.y);
  } else {
    path += "C" + coordinate(line.begin.x) + " " + coordinate(middle) + " " +
            coordinate(line.end.x) + " " + coordinate(middle) + " " + coordinate(line.end.x) + " " +
            coordinate(line.arrive_y);
    if (line.end.y > line.arrive_y) path += "V" + coordinate(line.end.y);
  }
  return path + "\"/>\n";
}

std::string svg_arrow(Point tip, std::string_view css_class) {
  return "<path" + of_class(css_class) + " d=\"M" + coordinate(tip.x) + " " + coordinate(tip.y) +
         "l-3-6h6z\"/>\n";
}

}  // namespace fluxion::show
