#include "engine/show/diagram.h"

#include <algorithm>
#include <array>
#include <set>

#include "engine/show/markup.h"
#include "engine/show/palette.h"
#include "engine/show/svg.h"

namespace fluxion::show {

namespace {

constexpr double margin = 22, line_height = 14, first_size = 12, other_size = 11, name_size = 10,
                 stripe_width = 5;

constexpr std::string_view diagram_style =
    R"(  .box { stroke-width: 1.2 } .source { stroke-width: 2.4 } )"
    R"(.result { stroke-width: 2.4; stroke-dasharray: 6 2.5 }
  .memory { stroke-width: 1; stroke-dasharray: 3 2 } .first { font-weight: 600;)"
    R"( fill: #22262e } .other { font-size: 11px }
  .name { font-size: 10px; fill: #8b93a1 } .line { fill: none; stroke-width: 1.4 } )"
    R"(.lane { fill: #f8f9fb }
)";
constexpr std::string_view dark_diagram_style =
    R"(    .first { fill: #eef1f6 } .name { fill: #7b8494 } .lane { fill: #1a1e26 }
)";

std::string role_class(char what, const std::optional<Role>& role) {
  return std::string({what, '-'}) + std::string(colours(role).name);
}

std::string_view form_class(Form form) {
  static constexpr std::array<std::string_view, 4> names = {"box", "box source", "box result",
                                                            "box memory"};
  return names[static_cast<std::size_t>(form)];
}

bool striped(const Box& box) { return box.form == Form::plain; }

// Movement ops are drawn near their readers; in a plan they are part of them.
LayeredNode size_of(const Box& box, bool columns) {
  double width = 30;
  for (std::size_t k = 0; k < box.lines.size(); ++k) {
    double line = text_width(box.lines[k], k == 0 ? 1.04 * first_size : other_size);
    if (k == 0 && !box.name.empty()) line += 10 + text_width(box.name, name_size);
    width = std::max(width, line);
  }
  return {width + 18 + (striped(box) ? stripe_width : 0),
          10 + line_height * static_cast<double>(std::max<std::size_t>(box.lines.size(), 1)),
          columns && box.role ? static_cast<int>(*box.role) : 0, box.kind == Kind::movement};
}

std::string box_svg(const Box& box, const LayeredNode& size, Point centre) {
  const double left = centre.x - size.width / 2, top = centre.y - size.height / 2;
  const double radius = box.form == Form::plain ? 4 : std::min(size.height / 2, 12.0);
  std::string svg = "<g>";
  if (!box.detail.empty()) svg += "<title>" + xml_escaped(box.detail) + "</title>\n";
  svg += svg_rect(left, top, size.width, size.height,
                  std::string(form_class(box.form)) + " " + role_class('b', box.role), radius);
  double text_left = left + 9;
  if (striped(box)) {
    svg += svg_rect(left + 3, top + 4, stripe_width, size.height - 8,
                    "s-" + std::string(colour(box.kind).name), 2);
    text_left += stripe_width + 2;
  }
  for (std::size_t k = 0; k < box.lines.size(); ++k)
    svg += svg_text(text_left, top + 16.5 + line_height * static_cast<double>(k), box.lines[k],
                    k == 0 ? "first" : "other");
  if (!box.name.empty())
    svg += svg_text(left + size.width - 7, top + 15.5, box.name, "name", "text-anchor=\"end\"");
  return svg + "</g>\n";
}

// What the stripes mean, in rows no wider than `width`.
std::string legend(const Diagram& diagram, double left, double width, double& y) {
  std::set<Kind> kinds;
  for (const Box& box : diagram.boxes)
    if (striped(box)) kinds.insert(box.kind);
  std::string svg;
  double x = left;
  for (const Kind kind : kinds) {
    const double room = 15 + text_width(colour(kind).name, first_size) + 14;
    if (x > left && x + room > left + width) x = left, y += 18;
    svg += svg_rect(x, y - 9, 10, 10, "s-" + std::string(colour(kind).name), 2) +
           svg_text(x + 15, y, colour(kind).name);
    x += room;
  }
  return svg;
}

std::vector<LayeredNode> sizes_of(const Diagram& diagram) {
  std::vector<LayeredNode> sizes;
  for (const Box& box : diagram.boxes) sizes.push_back(size_of(box, diagram.columns_by_role));
  return sizes;
}

constexpr double title_size = 15, note_size = 12;

// A drawing that is wider than a page is drawn again, with less beside each other.
Layered arranged(const Diagram& diagram, const std::vector<LayeredNode>& sizes) {
  Layered drawing = layered(sizes, diagram.edges);
  if (sizes.size() > comfortable_boxes) return drawing;
  LayeredOptions options;
  const auto lanes = static_cast<double>(
      std::count_if(drawing.lanes.begin(), drawing.lanes.end(),
                    [](const Layered::Lane& lane) { return lane.right > lane.left; }));
  for (const double share : {1.0, 0.8, 0.6}) {
    if (drawing.width + 2 * margin <= page_width) break;
    options.lane_room = share * (page_width - 2 * margin) / lanes;
    Layered thinner = layered(sizes, diagram.edges, options);
    if (thinner.width < drawing.width) drawing = std::move(thinner);
  }
  return drawing;
}

double inner_width(const Diagram& diagram, const Layered& drawing) {
  return std::max({drawing.width, text_width(diagram.title, title_size),
                   text_width(diagram.note, note_size), 160.0});
}

std::string quoted(std::string_view text) { return "\"" + dot_escaped(text) + "\""; }

std::string box_dot(const Box& box, std::size_t number, const std::string& indent) {
  static constexpr std::array<std::string_view, 4> styles = {
      "filled", "filled,rounded,bold", "filled,rounded,bold,dashed", "filled,rounded,dashed"};
  std::string label;
  for (const std::string& line : box.lines) label += (label.empty() ? "" : "\n") + line;
  const RoleColours& role = colours(box.role);
  std::string dot = indent + "n" + std::to_string(number) + " [label=" + quoted(label) +
                    ", style=" + quoted(styles[static_cast<std::size_t>(box.form)]) +
                    ", fillcolor=" + quoted(role.paper) +
                    ", color=" + quoted(striped(box) ? colour(box.kind).colour : role.border);
  if (!box.name.empty()) dot += ", xlabel=" + quoted(box.name);
  if (!box.detail.empty()) dot += ", tooltip=" + quoted(box.detail);
  return dot + "];\n";
}

}  // namespace

std::string to_string(Role role) { return std::string(colours(role).name); }

std::string to_svg(const Diagram& diagram) {
  const std::vector<LayeredNode> sizes = sizes_of(diagram);
  const Layered drawing = arranged(diagram, sizes);

  double top = margin;
  std::string head;
  const auto write = [&](const std::string& text, std::string_view css_class, double size) {
    if (text.empty()) return;
    top += size;
    head += svg_text(margin, top, text, css_class);
    top += 8;
  };
  write(diagram.title, "title", title_size);
  write(diagram.note, {}, note_size);
  const double width = inner_width(diagram, drawing);
  const double left = margin + (width - drawing.width) / 2;
  const double lane_top = top + 4;
  top += diagram.columns_by_role ? 38 : 12;

  std::string body = std::move(head);
  const double bottom = top + drawing.height;
  if (diagram.columns_by_role)
    for (std::size_t k = 0; k < drawing.lanes.size(); ++k) {
      const Layered::Lane& lane = drawing.lanes[k];
      if (lane.right <= lane.left) continue;
      const std::string name = to_string(static_cast<Role>(k));
      const double spare = std::max(0.0, text_width(name, 13) - (lane.right - lane.left)) / 2;
      body += svg_rect(left + lane.left - 9 - spare, lane_top,
                       lane.right - lane.left + 18 + 2 * spare, bottom - lane_top + 12, "lane", 8);
      body += svg_text(left + (lane.left + lane.right) / 2, lane_top + 19, name, "label",
                       "text-anchor=\"middle\"");
    }
  const auto moved = [&](Point point) { return Point{point.x + left, point.y + top}; };
  for (LayeredLine line : drawing.lines) {
    line.begin = moved(line.begin), line.end = moved(line.end), line.leave_y += top,
    line.arrive_y += top;
    const std::optional<Role> role = diagram.boxes[static_cast<std::size_t>(line.from)].role;
    if (line.to >= 0) line.end.y -= 1, line.arrive_y = std::min(line.arrive_y, line.end.y);
    body += svg_path(line, "line " + role_class('l', role));
    if (line.to >= 0) body += svg_arrow(line.end, role_class('h', role));
  }
  for (const CutLine& cut : drawing.cuts) {
    const Box& from = diagram.boxes[static_cast<std::size_t>(cut.from)];
    const Point end = moved(cut.at);
    body += svg_arrow(end, role_class('h', from.role)) +
            svg_text(end.x + 2, end.y - 7, from.name, "name");
  }
  for (std::size_t k = 0; k < diagram.boxes.size(); ++k)
    body += box_svg(diagram.boxes[k], sizes[k], moved(drawing.centres[k]));

  double y = bottom + 36;
  const std::string kinds = legend(diagram, margin, width, y);
  body += kinds;
  return svg_document(width + 2 * margin, kinds.empty() ? bottom + margin : y + 14,
                      std::string(diagram_style) + palette_style(),
                      std::string(dark_diagram_style) + dark_palette_style(), body);
}

Point drawn_size(const Diagram& diagram) {
  const Layered drawing = arranged(diagram, sizes_of(diagram));
  return {inner_width(diagram, drawing) + 2 * margin, drawing.height};
}

std::string to_dot(const Diagram& diagram) {
  std::string dot = "digraph {\n";
  std::string label = diagram.title;
  if (!diagram.note.empty()) label += (label.empty() ? "" : "\n") + diagram.note;
  if (!label.empty()) dot += "  label=" + quoted(label) + "; labelloc=t;\n";
  dot +=
      "  rankdir=TB; newrank=true;\n  node [shape=box, fontname=\"Helvetica\", fontsize=11];\n  "
      "edge [arrowsize=0.6];\n";
  if (diagram.columns_by_role) {
    for (int role = 0; role < role_count; ++role) {
      std::string inside;
      for (std::size_t k = 0; k < diagram.boxes.size(); ++k)
        if (static_cast<int>(diagram.boxes[k].role.value_or(Role::primal)) == role)
          inside += box_dot(diagram.boxes[k], k, "    ");
      if (inside.empty()) continue;
      const std::string name = to_string(static_cast<Role>(role));
      dot += "  subgraph cluster_" + name + " {\n    label=" + quoted(name) +
             "; color=\"#b4bac6\"; fontname=\"Helvetica\";\n" + inside + "  }\n";
    }
  } else {
    for (std::size_t k = 0; k < diagram.boxes.size(); ++k)
      dot += box_dot(diagram.boxes[k], k, "  ");
  }
  for (const LayeredEdge& edge : diagram.edges)
    dot += "  n" + std::to_string(edge.from) + " -> n" + std::to_string(edge.to) + " [color=" +
           quoted(colours(diagram.boxes[static_cast<std::size_t>(edge.from)].role).border) + "];\n";
  return dot + "}\n";
}

}  // namespace fluxion::show
