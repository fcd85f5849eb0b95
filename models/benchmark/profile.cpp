#include "models/benchmark/profile.h"

#include <algorithm>
#include <map>
#include <set>

#include "engine/error.h"
#include "engine/graph/expansion.h"
#include "engine/graph/op_names.h"
#include "engine/number_text.h"
#include "engine/show/markup.h"
#include "engine/show/svg.h"

namespace fluxion {
namespace {

std::string counted(std::size_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

// Buffers that a tape touches.
void collect(const Tape& tape, std::set<std::int32_t>& buffers) {
  for (const TapeLoad& load : tape.loads) buffers.insert(load.buffer);
  for (const TapeStore& store : tape.stores) buffers.insert(store.buffer);
}

// What a description is made from.
struct Description {
  KernelWork& work;
  std::set<std::int32_t>& buffers;
};

std::string work_on(const TapeKernel& kernel, const Description& to) {
  const Tape& tape = kernel.tape;
  collect(tape, to.buffers);
  to.work.kind = tape.reduced_axes > 0 ? WorkKind::rows : WorkKind::map;
  std::string text = tape.reduced_axes > 0 ? "rows " : "map ";
  text += to_string(tape.extents);
  if (tape.reduced_axes > 0) text += " over " + std::to_string(tape.reduced_axes);
  return text + ", " + counted(tape.loads.size(), "load") + ", " +
         counted(tape.instructions.size(), "instruction") + ", " +
         counted(tape.stores.size(), "store");
}

std::string work_on(const ContractKernel& kernel, const Description& to) {
  for (const ContractTerm& term : kernel.terms)
    to.buffers.insert({term.lhs.buffer, term.rhs.buffer});
  collect(kernel.epilogue, to.buffers);
  const bool fused = kernel.epilogue.instructions.size() > static_cast<std::size_t>(kernel.results);
  to.work.kind = fused ? WorkKind::fused_product : WorkKind::product;
  to.work.flops = 2.0 * static_cast<double>(kernel.batch) * static_cast<double>(kernel.m) *
                  static_cast<double>(kernel.n) * static_cast<double>(kernel.k) *
                  static_cast<double>(kernel.terms.size());
  std::string text = "contract ";
  if (kernel.batch > 1) text += std::to_string(kernel.batch) + ": ";
  text += std::to_string(kernel.m) + " x " + std::to_string(kernel.k) + " x " +
          std::to_string(kernel.n) + ", " + counted(kernel.terms.size(), "term");
  // The first instructions are the results themselves.
  if (fused) text += ", epilogue of " + std::to_string(kernel.epilogue.instructions.size());
  return text;
}

// Of attention over q [.., queries, d] and k [.., keys, d]: two products; with tangents four more,
// backwards five.
double attention_flops(Op op, const Shape& q, const Shape& k) {
  const double products = op == Op::attention ? 2 : op == Op::attention_dual ? 6 : 5;
  return 2 * products * static_cast<double>(q.elements()) * static_cast<double>(k[k.rank() - 2]);
}

std::string work_on(const OpKernel& kernel, const Description& to) {
  // Operands may be slices of their buffers, and a lookup reads the rows that it returns.
  std::set<std::int32_t> seen;
  for (std::size_t i = 0; i < kernel.inputs.size(); ++i)
    if (seen.insert(kernel.inputs[i]).second || !kernel.views.empty())
      to.work.bytes += static_cast<double>(
          kernel.op == Op::take && i == 0
              ? std::min(kernel.input_types[i].bytes(), kernel.output_types.front().bytes())
              : kernel.input_types[i].bytes());
  for (const TensorType& type : kernel.output_types)
    to.work.bytes += static_cast<double>(type.bytes());
  if (is_attention(kernel.op)) {
    to.work.kind = WorkKind::attention;
    to.work.flops =
        attention_flops(kernel.op, kernel.input_types[0].shape, kernel.input_types[1].shape);
  }
  return std::string(to_string(kernel.op)) +
         (kernel.output_types.empty() ? "" : " " + to_string(kernel.output_types.front()));
}

void check_times(const Program& program, std::span<const double> seconds) {
  if (seconds.size() != program.kernels.size())
    throw Error("profile: " + std::to_string(seconds.size()) + " times for " +
                std::to_string(program.kernels.size()) + " kernels");
}

}  // namespace

KernelWork describe(const Program& program, const Kernel& kernel) {
  KernelWork work;
  std::set<std::int32_t> buffers;
  const Description to{work, buffers};
  work.text = std::visit([&](const auto& value) { return work_on(value, to); }, kernel);
  for (const std::int32_t buffer : buffers)
    work.bytes +=
        static_cast<double>(program.buffers[static_cast<std::size_t>(buffer)].type.bytes());
  return work;
}

double Roofline::seconds(const KernelWork& work) const {
  return std::max(flops > 0 ? work.flops / flops : 0, bytes > 0 ? work.bytes / bytes : 0);
}

std::vector<ProfileRow> profile(const Program& program, std::span<const double> seconds,
                                const Roofline& roofline) {
  check_times(program, seconds);
  std::map<std::string, ProfileRow> rows;
  for (std::size_t k = 0; k < seconds.size(); ++k) {
    const KernelWork work = describe(program, program.kernels[k]);
    ProfileRow& row = rows[work.text];
    row.text = work.text;
    row.seconds += seconds[k];
    row.flops += work.flops;
    row.bytes += work.bytes;
    row.least_seconds += roofline.seconds(work);
    row.kernels.push_back(k);
  }
  std::vector<ProfileRow> result;
  for (auto& [text, row] : rows) result.push_back(std::move(row));
  std::stable_sort(result.begin(), result.end(),
                   [](const ProfileRow& a, const ProfileRow& b) { return a.seconds > b.seconds; });
  return result;
}

namespace {

// The lines of a timeline, from top to bottom.
struct TimelineLine {
  WorkKind kind;
  const char *name, *colour;
};
constexpr TimelineLine timeline_lines[] = {
    {WorkKind::product, "products", "#5b8fd6"},
    {WorkKind::fused_product, "products with an epilogue", "#6cb28e"},
    {WorkKind::attention, "attention", "#b07cc6"},
    {WorkKind::rows, "rows", "#d9a04e"},
    {WorkKind::map, "maps", "#d1736d"},
    {WorkKind::other, "other", "#8f8fcf"},
};

constexpr std::string_view timeline_style =
    R"(  .panel { fill: #f8f9fb } .grid { stroke: #e3e6ec; stroke-width: 1 }
  .took { fill-opacity: 0.35 } .small { font-size: 11px }
)";
constexpr std::string_view dark_timeline_style =
    R"(    .panel { fill: #1b1f27 } .grid { stroke: #2b313c }
)";

// Nanoseconds between the numbers of an axis with at most eleven of them: 1, 2 or 5 times a power
// of ten.
std::int64_t tick_of(double total) {
  std::int64_t tick = 1;
  for (int i = 0; 1e-8 * static_cast<double>(tick) < total; ++i)
    tick = i % 3 == 1 ? tick / 2 * 5 : tick * 2;
  return tick;
}

std::string percent(double part, double whole) {
  return whole > 0 ? fixed_text(100 * part / whole, 0) + "%" : "-";
}

}  // namespace

std::string timeline_svg(const Program& program, std::span<const double> seconds,
                         const Roofline& roofline, const std::string& title) {
  check_times(program, seconds);
  constexpr double left = 240, right = 24, top = 62, line_height = 54, bar = 40, width = 1400;
  double total = 0;
  for (const double took : seconds) total += took;
  const double scale = total > 0 ? width / total : 0;
  const double bottom = top + line_height * static_cast<double>(std::size(timeline_lines));
  const auto x_of = [&](double time) { return fixed_text(left + scale * time, 2); };

  // Axis and lines, with the share of each kind.
  std::string body = show::svg_text(24, 28, title, "title") +
                     show::svg_rect(left, top, width, bottom - top, "panel");
  const std::int64_t tick = tick_of(total);
  for (std::int64_t at = 0; 1e-9 * static_cast<double>(at) <= total; at += tick) {
    const std::string x = x_of(1e-9 * static_cast<double>(at));
    body += "<path class=\"grid\" d=\"M" + x + " " + show::coordinate(top) + "V" +
            show::coordinate(bottom) + "\"/>\n<text class=\"small\" text-anchor=\"middle\" x=\"" +
            x + "\" y=\"" + show::coordinate(bottom + 18) + "\">" +
            number_text(static_cast<double>(at) / 1e6) + " ms</text>\n";
  }
  std::string bars;
  double share[std::size(timeline_lines)] = {}, least[std::size(timeline_lines)] = {};
  double start = 0;
  for (std::size_t k = 0; k < seconds.size(); ++k) {
    const KernelWork work = describe(program, program.kernels[k]);
    const auto line = static_cast<std::size_t>(
        std::find_if(std::begin(timeline_lines), std::end(timeline_lines),
                     [&](const TimelineLine& each) { return each.kind == work.kind; }) -
        timeline_lines);
    const double took = seconds[k], allowed = roofline.seconds(work);
    share[line] += took, least[line] += allowed;
    const double reached = took > 0 ? std::min(1.0, allowed / took) : 0;
    const double base = top + line_height * static_cast<double>(line + 1) - 6;
    const auto box = [&](const char* css_class, double height) {
      return "<rect class=\"" + std::string(css_class) + "\" fill=\"" +
             timeline_lines[line].colour + "\" x=\"" + x_of(start) + "\" y=\"" +
             fixed_text(base - height, 2) + "\" width=\"" + fixed_text(scale * took, 2) +
             "\" height=\"" + fixed_text(height, 2) + "\"/>";
    };
    std::string says = "kernel " + std::to_string(k) + ": " + work.text + "\n" +
                       fixed_text(1e3 * took, 3) + " ms at " + fixed_text(1e3 * start, 3) + " ms";
    if (took > 0 && work.flops > 0)
      says += ", " + fixed_text(work.flops / took / 1e9, 1) + " GFLOP/s";
    if (took > 0) says += ", " + fixed_text(work.bytes / took / 1e9, 1) + " GB/s";
    if (allowed > 0) says += ", " + percent(allowed, took) + " of the roofline";
    bars += "<g><title>" + show::xml_escaped(says) + "</title>" + box("took", bar) +
            box("reached", bar * reached) + "</g>\n";
    start += took;
  }
  for (std::size_t i = 0; i < std::size(timeline_lines); ++i) {
    const double y = top + line_height * static_cast<double>(i) + 26;
    body += show::svg_text(24, y, timeline_lines[i].name, "label");
    std::string says = percent(share[i], total) + " of the time";
    if (least[i] > 0) says += ", " + percent(least[i], share[i]) + " of the roofline";
    body += show::svg_text(24, y + 16, says, "small");
  }
  std::string rates = "filled: what the roofline allows";
  if (roofline.flops > 0) rates += ", " + fixed_text(roofline.flops / 1e9, 0) + " GFLOP/s";
  if (roofline.bytes > 0) rates += ", " + fixed_text(roofline.bytes / 1e9, 0) + " GB/s";
  body += bars + show::svg_text(left, 52, rates, "small");
  return show::svg_document(left + width + right, bottom + 34, timeline_style, dark_timeline_style,
                            body);
}

}  // namespace fluxion
