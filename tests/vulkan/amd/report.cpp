#include "tests/vulkan/amd/report.h"

#include <algorithm>
#include <functional>
#include <map>

#include "engine/error.h"
#include "engine/number_text.h"
#include "tests/vulkan/amd/step_shaders.h"

namespace fluxion::amd {

namespace {

std::string percent(double share) { return fixed_text(100 * share, 0) + "%"; }

std::string range(std::int64_t low, std::int64_t high) {
  return low == high ? std::to_string(low) : std::to_string(low) + " to " + std::to_string(high);
}
std::string percent_range(double low, double high) {
  return percent(low) == percent(high) ? percent(low)
                                       : fixed_text(100 * low, 0) + " to " + percent(high);
}

template <class F>
auto low_and_high(const std::vector<const ShaderRow*>& rows, const F& of) {
  const auto [low, high] =
      std::minmax_element(rows.begin(), rows.end(),
                          [&](const ShaderRow* a, const ShaderRow* b) { return of(*a) < of(*b); });
  return std::pair(of(**low), of(**high));
}

// "128: 12, 4: 3": memory instructions by bytes.
std::string text_of(const Accesses& accesses) {
  std::string text;
  for (std::size_t i = accesses.widths.size(); i-- > 0;)
    if (accesses.by_width[i] > 0)
      text += (text.empty() ? "" : ", ") + std::to_string(accesses.by_width[i]) + " of " +
              std::to_string(accesses.widths[i]) + " B";
  return text.empty() ? "none" : text;
}

std::string padded(const std::string& text, std::size_t width) {
  return std::string(width - std::min(width, text.size()), ' ') + text;
}

}  // namespace

StepReport report_of(const std::string& net, const Compiler& compiler) {
  const StepShaders step = net == "index ops" ? shaders_of_index_ops(compiler.facts())
                                              : shaders_of_step(net, compiler.facts());
  StepReport report{net, step.kernels, step.dispatches, {}, step.not_lowered};
  for (const StepShader& used : step.shaders) {
    const vulkan_backend::Shader& shader = used.shader;
    try {
      const CompiledShader compiled = compiler.compile(
          shader.words, {shader.bindings, shader.push_bytes, shader.subgroup_size});
      report.rows.push_back({shader.name, used.first_kernel, used.dispatches,
                             shader.local_size[0] * shader.local_size[1] * shader.local_size[2],
                             compiled.statistics, read_isa(compiled.isa)});
    } catch (const Error& error) {
      report.failures.push_back(shader.name + " of " + used.first_kernel + ": " + error.what());
    }
  }
  return report;
}

std::vector<std::string> offences(const StepReport& report) {
  std::vector<std::string> found;
  for (const std::string& failure : report.failures) found.push_back(report.net + ", " + failure);
  for (const ShaderRow& row : report.rows) {
    const Statistics& s = row.statistics;
    if (s.spilled_vgprs + s.spilled_sgprs + s.scratch_bytes > 0)
      found.push_back(report.net + ", " + row.kernel_class + " of " + row.first_kernel + ": " +
                      std::to_string(s.spilled_vgprs) + " spilled VGPRs, " +
                      std::to_string(s.spilled_sgprs) + " spilled SGPRs, " +
                      std::to_string(s.scratch_bytes) + " bytes of scratch");
  }
  return found;
}

std::string table_of_classes(const StepReport& report) {
  std::map<std::string, std::vector<const ShaderRow*>> classes;
  for (const ShaderRow& row : report.rows) classes[row.kernel_class].push_back(&row);
  std::string text =
      "| kernel | shaders | dispatches | VGPRs | SGPRs | LDS, bytes | subgroups a SIMD | "
      "instructions | multiply-adds | loads of 16 B | stores of 16 B | latency | cycles |\n"
      "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";
  for (const auto& [name, rows] : classes) {
    std::int64_t dispatches = 0;
    for (const ShaderRow* row : rows) dispatches += row->dispatches;
    const auto numbers = [&](std::int64_t Statistics::*member) {
      const auto [low, high] =
          low_and_high(rows, [&](const ShaderRow& row) { return row.statistics.*member; });
      return " | " + range(low, high);
    };
    const auto shares = [&](const std::function<double(const ShaderRow&)>& of) {
      const auto [low, high] = low_and_high(rows, of);
      return " | " + percent_range(low, high);
    };
    text += "| " + name + " | " + std::to_string(rows.size()) + " | " + std::to_string(dispatches) +
            numbers(&Statistics::vgprs) + numbers(&Statistics::sgprs) +
            numbers(&Statistics::shared_bytes) + numbers(&Statistics::subgroups_per_simd) +
            numbers(&Statistics::instructions) +
            shares([](const ShaderRow& row) { return row.code.multiply_add_share(); }) +
            shares([](const ShaderRow& row) { return row.code.loads.widest_share(); }) +
            shares([](const ShaderRow& row) { return row.code.stores.widest_share(); }) +
            numbers(&Statistics::latency) + numbers(&Statistics::inverse_throughput) + " |\n";
  }
  return text;
}

namespace {

struct Bar {
  std::string kernels;  // classes that begin so
  std::string figure;
  std::function<double(const ShaderRow&)> of;
  double least;
  bool share;
  bool wide_register_files;  // only where a SIMD has registers for many subgroups, as RDNA's
};

std::vector<Bar> all_bars() {
  const auto multiply_adds = [](const ShaderRow& row) { return row.code.multiply_add_share(); };
  const auto subgroups = [](const ShaderRow& row) {
    return static_cast<double>(row.statistics.subgroups_per_simd);
  };
  const auto loads = [](const ShaderRow& row) { return row.code.loads.widest_share(); };
  const auto stores = [](const ShaderRow& row) { return row.code.stores.widest_share(); };
  return {{"gemm ", "multiply-adds in the inner loop", multiply_adds, 0.8, true, false},
          {"gemm ", "subgroups a SIMD", subgroups, 8, false, true},
          {"gemm ", "loads of 16 B", loads, 0.8, true, false},
          {"attention", "multiply-adds in the inner loop", multiply_adds, 0.6, true, false},
          {"map of fours", "loads of 16 B", loads, 0.8, true, false},
          {"map of fours", "stores of 16 B", stores, 0.8, true, false},
          {"map of eights", "loads of 16 B", loads, 0.8, true, false},
          {"map of eights", "stores of 16 B", stores, 0.8, true, false}};
}

}  // namespace

std::string bars(const StepReport& report) {
  std::string text;
  std::int64_t most_subgroups = 0;
  for (const ShaderRow& row : report.rows)
    most_subgroups = std::max(most_subgroups, row.statistics.subgroups_per_simd);
  for (const Bar& bar : all_bars()) {
    if (bar.wide_register_files && most_subgroups < 16) continue;
    std::int64_t shaders = 0, below = 0, dispatches = 0, dispatches_below = 0;
    double lowest = bar.least;
    for (const ShaderRow& row : report.rows) {
      if (!row.kernel_class.starts_with(bar.kernels) || row.kernel_class == "gemm sums") continue;
      ++shaders;
      dispatches += row.dispatches;
      if (bar.of(row) >= bar.least) continue;
      ++below;
      dispatches_below += row.dispatches;
      lowest = std::min(lowest, bar.of(row));
    }
    if (shaders == 0) continue;
    const auto figure = [&](double value) {
      return bar.share ? percent(value) : fixed_text(value, 0);
    };
    std::string name = bar.kernels;
    while (name.ends_with(' ')) name.pop_back();
    text += "- " + name + ", at least " + figure(bar.least) + " " + bar.figure + ": " +
            (below == 0
                 ? std::string("all")
                 : std::to_string(below) + " of " + std::to_string(shaders) +
                       " shaders are below (" + std::to_string(dispatches_below) + " of " +
                       std::to_string(dispatches) + " dispatches), the lowest " + figure(lowest)) +
            "\n";
  }
  return text.empty() ? text : "\n" + text;
}

std::string table_of_shaders(const StepReport& report) {
  std::vector<const ShaderRow*> rows;
  for (const ShaderRow& row : report.rows) rows.push_back(&row);
  std::ranges::stable_sort(rows, std::greater<>(),
                           [](const ShaderRow* row) { return row->statistics.inverse_throughput; });
  std::string text =
      "  uses group vgprs sgprs spill scratch    lds waves instr  fma ld16 st16 latency  cycles"
      "  kernel\n";
  for (const ShaderRow* row : rows) {
    const Statistics& s = row->statistics;
    const auto column = [&](std::int64_t value, std::size_t width) {
      text += padded(std::to_string(value), width);
    };
    column(row->dispatches, 6);
    column(row->invocations, 6);
    column(s.vgprs, 6);
    column(s.sgprs, 6);
    column(s.spilled_vgprs + s.spilled_sgprs, 6);
    column(s.scratch_bytes, 8);
    column(s.shared_bytes, 7);
    column(s.subgroups_per_simd, 6);
    column(s.instructions, 6);
    text += padded(percent(row->code.multiply_add_share()), 5);
    text += padded(percent(row->code.loads.widest_share()), 5);
    text += padded(percent(row->code.stores.widest_share()), 5);
    column(s.latency, 8);
    column(s.inverse_throughput, 8);
    text += "  " + row->kernel_class + ", " + row->first_kernel + "\n";
  }
  return text;
}

std::string text_of(const CompiledShader& shader) {
  const Statistics& s = shader.statistics;
  const CodeReport code = read_isa(shader.isa);
  const auto line = [](const std::string& name, const std::string& value) {
    return name + std::string(20 - std::min<std::size_t>(name.size(), 19), ' ') + value + "\n";
  };
  const auto count = [&](const std::string& name, std::int64_t value) {
    return line(name, std::to_string(value));
  };
  return count("VGPRs", s.vgprs) + count("SGPRs", s.sgprs) +
         count("spilled", s.spilled_vgprs + s.spilled_sgprs) +
         count("scratch bytes", s.scratch_bytes) + count("shared bytes", s.shared_bytes) +
         count("subgroups per SIMD", s.subgroups_per_simd) + count("instructions", s.instructions) +
         count("code bytes", s.code_bytes) + count("latency", s.latency) +
         count("inverse throughput", s.inverse_throughput) +
         line("inner loop", (code.loops ? "" : "(none: the whole program) ") +
                                std::to_string(code.loop_multiply_adds) + " multiply-adds of " +
                                std::to_string(code.loop_instructions) + " instructions, " +
                                percent(code.multiply_add_share())) +
         line("loads", text_of(code.loads)) + line("stores", text_of(code.stores)) +
         line("shared loads", text_of(code.shared_loads)) +
         line("shared stores", text_of(code.shared_stores)) +
         count("scalar loads", code.scalar_loads) + count("barriers", code.barriers) +
         count("waits", code.waits);
}

}  // namespace fluxion::amd
