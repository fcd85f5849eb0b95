#include "cli/zoo_page.h"

#include <algorithm>
#include <cmath>

#include "cli/command.h"
#include "engine/number_text.h"
#include "engine/show/markup.h"

namespace fluxion::cli {

namespace {

std::string base64(std::span<const std::byte> bytes) {
  static constexpr char digits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t left = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t three = 0;
    for (std::size_t k = 0; k < 3; ++k)
      three = three << 8 | (k < left ? std::to_integer<std::uint32_t>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k)
      text.push_back(k <= left ? digits[three >> (18 - 6 * k) & 63] : '=');
  }
  return text;
}

std::string escaped(const std::string& text) { return show::xml_escaped(text); }

const char* const style = R"(
:root { color-scheme: light dark; --line: #d8d8e0; --soft: #666674; --best: #1f7a4d; }
@media (prefers-color-scheme: dark) { :root { --line: #3c3c48; --soft: #a0a0b0; --best: #6fd3a0; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1180px; padding: 1rem;
       overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 0 0 .25rem; }
p { margin: .3rem 0; } .soft { color: var(--soft); font-size: .9rem; }
code { font-size: .85em; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; }
th, td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; }
th:first-child, td:first-child { background: Canvas; }
td.best { color: var(--best); font-weight: 700; }
td.group, th.group { border-left: 1px solid var(--line); }
article { border-top: 1px solid var(--line); padding: 1rem 0; }
.pictures { display: grid; gap: .75rem; margin-top: .5rem; }
.pictures { grid-template-columns: repeat(auto-fit, minmax(min(100%, 16rem), 1fr)); }
.pictures.drawn { grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
figure { margin: 0; } figcaption { color: var(--soft); font-size: .85rem; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
.failure { color: #b3261e; } @media (prefers-color-scheme: dark) { .failure { color: #ff8a80; } }
)";

std::string metric_text(double value) { return rounded_text(value, 3); }

const ZooDraw* draw_of(const ZooEntry& entry, std::int64_t steps) {
  for (const ZooDraw& draw : entry.draws)
    if (draw.steps == steps) return &draw;
  return nullptr;
}

// Steps that entries were drawn in, in order.
std::vector<std::int64_t> common_steps(const ZooPage& page) {
  std::vector<std::int64_t> all;
  for (const ZooEntry& entry : page.entries)
    for (const ZooDraw& draw : entry.draws)
      if (draw.steps <= 8 && std::find(all.begin(), all.end(), draw.steps) == all.end())
        all.push_back(draw.steps);
  std::sort(all.begin(), all.end());
  return all;
}

std::string table(const ZooPage& page, const std::string& metric) {
  const std::vector<std::int64_t> steps = common_steps(page);
  std::string html = "<div class=\"scroll\"><table><thead><tr><th>" + escaped(metric) + "</th>";
  for (const std::int64_t each : steps)
    html += "<th>" + std::to_string(each) + (each == 1 ? " step" : " steps") + "</th>";
  html +=
      "<th class=\"group\">usual sampler</th><th>evaluations</th><th></th>"
      "<th class=\"group\">updates</th><th>ms each</th></tr></thead><tbody>";
  // The best of each column, of those that are drawn.
  const auto best_of = [&](std::int64_t at) {
    double best = 1e300;
    for (const ZooEntry& entry : page.entries) {
      const ZooDraw* const draw = draw_of(entry, at > 0 ? at : entry.usual_steps);
      if (!draw) continue;
      if (const auto value = draw->metrics.find(metric); value != draw->metrics.end())
        best = std::min(best, value->second);
    }
    return best;
  };
  const auto cell = [&](const ZooDraw* draw, double best) -> std::string {
    const auto value =
        draw ? draw->metrics.find(metric) : std::map<std::string, double>::const_iterator();
    if (!draw || value == draw->metrics.end()) return "<td></td>";
    return std::string(value->second == best ? "<td class=\"best\">" : "<td>") +
           metric_text(value->second) + "</td>";
  };
  for (const ZooEntry& entry : page.entries) {
    if (!entry.failure.empty()) continue;
    html += "<tr><td><a href=\"#" + escaped(entry.name) + "\">" + escaped(entry.name) + "</a></td>";
    for (const std::int64_t each : steps) html += cell(draw_of(entry, each), best_of(each));
    const ZooDraw* const usual = draw_of(entry, entry.usual_steps);
    html +=
        "<td class=\"group\">" + escaped(entry.sampler) + ", " + std::to_string(entry.usual_steps) +
        (entry.usual_steps == 1 ? " step" : " steps") + "</td><td>" +
        (usual ? rounded_text(usual->evaluations, 4) : "") + "</td>" + cell(usual, best_of(0)) +
        "<td class=\"group\">" + grouped(entry.steps) + "</td><td>" +
        (entry.steps > 0 ? rounded_text(1000 * entry.seconds / static_cast<double>(entry.steps), 3)
                         : "") +
        "</td></tr>";
  }
  html += "<tr><td>real samples</td>";
  const auto floor = page.floor.find(metric);
  for (std::size_t i = 0; i < steps.size(); ++i)
    html += "<td>" + (floor == page.floor.end() ? "" : metric_text(floor->second)) + "</td>";
  return html +
         "<td class=\"group\"></td><td></td><td></td><td class=\"group\"></td><td></td></tr>" +
         "</tbody></table></div>\n";
}

std::string figure(const std::string& address, const std::string& caption) {
  if (address.empty()) return "";
  return "<figure><img alt=\"" + escaped(caption) + "\" src=\"" + address + "\"><figcaption>" +
         escaped(caption) + "</figcaption></figure>\n";
}

}  // namespace

std::string data_address(const Image& image) {
  return "data:image/png;base64," + base64(encode_png(image));
}

std::string arrows_address(const std::vector<float>& at, const std::vector<float>& direction,
                           double reach) {
  constexpr double side = 360;
  const auto x = [&](double value) { return side / 2 * (1 + value / reach); };
  const auto text = [](double value) { return fixed_text(value, 1); };
  // The longest arrow is as long as the distance between two.
  double longest = 0;
  for (std::size_t i = 0; i + 1 < direction.size(); i += 2)
    if (std::isfinite(direction[i]) && std::isfinite(direction[i + 1]))
      longest = std::max(longest, std::hypot(static_cast<double>(direction[i]),
                                             static_cast<double>(direction[i + 1])));
  const double points = std::sqrt(static_cast<double>(at.size()) / 2);
  const double scale = longest > 0 ? 1.4 * reach / points / longest : 0;
  std::string svg =
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 360 360\" width=\"360\" "
      "height=\"360\"><rect width=\"360\" height=\"360\" fill=\"#fafafc\"/><g stroke=\"#3a5a9c\" "
      "stroke-width=\"1.4\" stroke-linecap=\"round\">";
  for (std::size_t i = 0; i + 1 < at.size(); i += 2) {
    const double dx = static_cast<double>(direction[i]), dy = static_cast<double>(direction[i + 1]);
    if (!std::isfinite(dx) || !std::isfinite(dy)) continue;
    const double px = static_cast<double>(at[i]), py = static_cast<double>(at[i + 1]);
    const double tip_x = x(px + scale * dx), tip_y = side - x(py + scale * dy);
    const double length = std::hypot(dx, dy), head = 4 * length / longest;
    const double ux = length > 0 ? dx / length : 0, uy = length > 0 ? -dy / length : 0;
    svg += "<path fill=\"none\" d=\"M" + text(x(px)) + " " + text(side - x(py)) + "L" +
           text(tip_x) + " " + text(tip_y) + "M" + text(tip_x - head * (ux - 0.6 * uy)) + " " +
           text(tip_y - head * (uy + 0.6 * ux)) + "L" + text(tip_x) + " " + text(tip_y) + "L" +
           text(tip_x - head * (ux + 0.6 * uy)) + " " + text(tip_y - head * (uy - 0.6 * ux)) +
           "\"/>";
  }
  svg += "</g></svg>";
  return "data:image/svg+xml;base64," + base64(std::as_bytes(std::span(svg)));
}

std::string zoo_html(const ZooPage& page) {
  std::string html =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\"><title>Fluxion zoo: " +
      escaped(page.data) + "</title><style>" + style + "</style></head><body>\n<h1>" +
      std::to_string(page.entries.size()) + " methods on " + escaped(page.data) +
      "</h1>\n<p>Each " + "trained " +
      (page.minutes > 0
           ? "for " + rounded_text(page.minutes, 3) + (page.minutes == 1 ? " minute" : " minutes")
           : grouped(page.steps) + " updates") +
      " with the same network, " + escaped(page.network) + ", " + grouped(page.parameters) +
      " parameters, on " + escaped(page.device) + ". Distances are between " + grouped(page.count) +
      " samples and as many real ones; what real samples get is the floor" +
      (page.seen ? ". The methods are trained on all samples of the file, also on those that they "
                   "are compared with: what lies below the floor has learned them by heart"
                 : " that no method is below but by chance") +
      ". Lower is better.</p>\n<p class=\"soft\"><code>" + escaped(page.command) + "</code></p>\n";
  for (const std::string& metric : page.metrics) html += table(page, metric);
  html += "<div class=\"pictures\">" + figure(page.real, "Real samples") + "</div>\n";
  for (const ZooEntry& entry : page.entries) {
    html += "<article id=\"" + escaped(entry.name) + "\"><h2>" + escaped(entry.name) +
            "</h2>\n<p>" + escaped(entry.summary) + ".</p><p class=\"soft\">" +
            escaped(entry.paper) + "</p>\n";
    if (!entry.failure.empty()) {
      html += "<p class=\"failure\">" + escaped(entry.failure) + "</p></article>\n";
      continue;
    }
    html +=
        "<p class=\"soft\">The network predicts " + escaped(entry.prediction) + "; " +
        grouped(entry.steps) + " updates in " + rounded_text(entry.seconds, 3) + " s" +
        (entry.teacher.empty() ? "" : ", after those of its teacher, " + escaped(entry.teacher)) +
        ".</p>\n<div class=\"pictures drawn\">";
    for (const ZooDraw& draw : entry.draws)
      html +=
          figure(draw.picture, std::to_string(draw.steps) + (draw.steps == 1 ? " step" : " steps"));
    html += "</div><div class=\"pictures\">" + figure(entry.ways, "The paths from noise to data") +
            figure(entry.field, "Where points halfway between noise and data go") +
            "</div></article>\n";
  }
  return html + "</body></html>\n";
}

}  // namespace fluxion::cli
