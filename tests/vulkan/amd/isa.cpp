#include "tests/vulkan/amd/isa.h"

#include <algorithm>
#include <map>
#include <sstream>
#include <string_view>
#include <vector>

namespace fluxion::amd {

namespace {

struct Instruction {
  std::string name, operands;
};

struct Code {
  std::vector<Instruction> instructions;
  std::map<std::string, std::size_t> blocks;  // the first instruction of each
};

Code parse(const std::string& text) {
  Code code;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    line.resize(std::min(line.find(';'), line.size()));
    std::istringstream words(line);
    Instruction instruction;
    if (!(words >> instruction.name)) continue;
    if (instruction.name.starts_with("BB") && instruction.name.ends_with(":")) {
      code.blocks[instruction.name.substr(0, instruction.name.size() - 1)] =
          code.instructions.size();
      continue;
    }
    words >> std::ws;
    std::getline(words, instruction.operands);
    while (instruction.operands.ends_with(' ')) instruction.operands.pop_back();
    code.instructions.push_back(std::move(instruction));
  }
  return code;
}

bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

// v_mac_f32, v_fmac_f32, v_fma_f32, v_pk_fma_f16, v_mad_f32, v_dot2_f32_f16, v_dual_fmac_f32, ..
bool multiply_adds(std::string_view name) {
  if (!name.starts_with("v_")) return false;
  const bool adds = contains(name, "fma") || contains(name, "_mac_f") || contains(name, "_mad_f") ||
                    contains(name, "_mad_mix") || contains(name, "_dot2");
  return adds && contains(name, "_f");
}

// Bytes of a lane from the end of a name: "_dwordx4", "_b128", "_ubyte", "_d16_b16", ..
int width(std::string_view name) {
  constexpr std::pair<std::string_view, int> endings[] = {
      {"dwordx4", 16}, {"dwordx3", 12}, {"dwordx2", 8}, {"dword", 4}, {"b128", 16}, {"b96", 12},
      {"b64", 8},      {"b32", 4},      {"short", 2},   {"b16", 2},   {"u16", 2},   {"i16", 2},
      {"byte", 1},     {"b8", 1},       {"u8", 1},      {"i8", 1}};
  for (const std::string_view suffix : {"_d16_hi", "_d16", "_e32", "_e64"})
    if (name.ends_with(suffix)) name.remove_suffix(suffix.size());
  for (const auto& [ending, bytes] : endings)
    if (name.ends_with(ending)) return bytes;
  return 4;
}

void count(Accesses& accesses, std::string_view name, int times = 1) {
  const auto at = std::find(Accesses::widths.begin(), Accesses::widths.end(), width(name));
  accesses.by_width[static_cast<std::size_t>(at - Accesses::widths.begin())] += times;
}

// Two accesses in one: ds_read2_b32, ds_write2st64_b64, ds_load_2addr_b32, ..
bool is_pair(std::string_view name) {
  return contains(name, "read2") || contains(name, "write2") || contains(name, "2addr");
}

void count(CodeReport& report, const Instruction& instruction) {
  const std::string_view name = instruction.name;
  const bool loads = contains(name, "load") || contains(name, "read");
  const bool vector = name.starts_with("buffer_") || name.starts_with("global_") ||
                      name.starts_with("flat_") || name.starts_with("tbuffer_");
  if (name.starts_with("scratch_")) ++report.scratch_accesses;
  if (vector && (loads || contains(name, "store")))
    count(loads ? report.loads : report.stores, name);
  if (name.starts_with("ds_") && (loads || contains(name, "write") || contains(name, "store")))
    count(loads ? report.shared_loads : report.shared_stores, name, is_pair(name) ? 2 : 1);
  if (name.starts_with("s_buffer_load")) ++report.scalar_loads;
  if (name.starts_with("s_barrier")) ++report.barriers;
  if (name.starts_with("s_waitcnt")) ++report.waits;
}

struct Range {
  std::size_t begin, end;  // of instructions
};

// From the first instruction of a block to the last branch back to it.
std::vector<Range> loops_of(const Code& code) {
  std::map<std::size_t, std::size_t> ends;
  for (std::size_t i = 0; i < code.instructions.size(); ++i) {
    const Instruction& instruction = code.instructions[i];
    if (!instruction.name.starts_with("s_branch") && !instruction.name.starts_with("s_cbranch"))
      continue;
    const auto target = code.blocks.find(instruction.operands);
    if (target != code.blocks.end() && target->second <= i) ends[target->second] = i + 1;
  }
  std::vector<Range> loops;
  for (const auto& [begin, end] : ends) loops.push_back({begin, end});
  std::erase_if(loops, [all = loops](const Range& outer) {
    return std::ranges::any_of(all, [&](const Range& inner) {
      return inner.begin > outer.begin && inner.end <= outer.end;
    });
  });
  return loops;
}

}  // namespace

std::int64_t Accesses::count() const {
  std::int64_t sum = 0;
  for (const std::int64_t n : by_width) sum += n;
  return sum;
}

std::int64_t Accesses::bytes() const {
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < widths.size(); ++i) sum += by_width[i] * widths[i];
  return sum;
}

double Accesses::widest_share() const {
  const std::int64_t all = bytes();
  return all > 0 ? static_cast<double>(by_width.back() * widths.back()) / static_cast<double>(all)
                 : 1;
}

CodeReport read_isa(const std::string& text) {
  const Code code = parse(text);
  CodeReport report;
  report.instructions = static_cast<std::int64_t>(code.instructions.size());
  for (const Instruction& instruction : code.instructions) count(report, instruction);
  const auto choose = [&](const Range& range) {
    std::int64_t multiply_adds_found = 0;
    for (std::size_t i = range.begin; i < range.end; ++i)
      multiply_adds_found += multiply_adds(code.instructions[i].name);
    if (multiply_adds_found <= report.loop_multiply_adds) return false;
    report.loop_multiply_adds = multiply_adds_found;
    report.loop_instructions = static_cast<std::int64_t>(range.end - range.begin);
    return true;
  };
  for (const Range& loop : loops_of(code)) report.loops = choose(loop) || report.loops;
  if (!report.loops) {
    report.loop_instructions = report.instructions;
    choose({0, code.instructions.size()});
  }
  return report;
}

}  // namespace fluxion::amd
