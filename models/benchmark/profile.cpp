#include "models/benchmark/profile.h"

#include <algorithm>
#include <map>
#include <set>

#include "engine/error.h"

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

std::string work_on(const TapeKernel& kernel, std::set<std::int32_t>& buffers, double&) {
  const Tape& tape = kernel.tape;
  collect(tape, buffers);
  std::string text = tape.reduced_axes > 0 ? "rows " : "map ";
  text += to_string(tape.extents);
  if (tape.reduced_axes > 0) text += " over " + std::to_string(tape.reduced_axes);
  return text + ", " + counted(tape.loads.size(), "load") + ", " +
         counted(tape.instructions.size(), "instruction") + ", " +
         counted(tape.stores.size(), "store");
}

std::string work_on(const ContractKernel& kernel, std::set<std::int32_t>& buffers, double& flops) {
  for (const ContractTerm& term : kernel.terms) buffers.insert({term.lhs.buffer, term.rhs.buffer});
  collect(kernel.epilogue, buffers);
  flops = 2.0 * static_cast<double>(kernel.batch) * static_cast<double>(kernel.m) *
          static_cast<double>(kernel.n) * static_cast<double>(kernel.k) *
          static_cast<double>(kernel.terms.size());
  std::string text = "contract ";
  if (kernel.batch > 1) text += std::to_string(kernel.batch) + ": ";
  text += std::to_string(kernel.m) + " x " + std::to_string(kernel.k) + " x " +
          std::to_string(kernel.n) + ", " + counted(kernel.terms.size(), "term");
  // The first instruction is the result itself.
  if (kernel.epilogue.instructions.size() > 1)
    text += ", epilogue of " + std::to_string(kernel.epilogue.instructions.size());
  return text;
}

std::string work_on(const OpKernel& kernel, std::set<std::int32_t>& buffers, double&) {
  buffers.insert(kernel.inputs.begin(), kernel.inputs.end());
  buffers.insert(kernel.outputs.begin(), kernel.outputs.end());
  return std::string(to_string(kernel.op)) +
         (kernel.output_types.empty() ? "" : " " + to_string(kernel.output_types.front()));
}

}  // namespace

KernelWork describe(const Program& program, const Kernel& kernel) {
  KernelWork work;
  std::set<std::int32_t> buffers;
  work.text =
      std::visit([&](const auto& value) { return work_on(value, buffers, work.flops); }, kernel);
  for (const std::int32_t buffer : buffers)
    work.bytes +=
        static_cast<double>(program.buffers[static_cast<std::size_t>(buffer)].type.bytes());
  return work;
}

std::vector<ProfileRow> profile(const Program& program, std::span<const double> seconds) {
  if (seconds.size() != program.kernels.size())
    throw Error("profile: " + std::to_string(seconds.size()) + " times for " +
                std::to_string(program.kernels.size()) + " kernels");
  std::map<std::string, ProfileRow> rows;
  for (std::size_t k = 0; k < seconds.size(); ++k) {
    const KernelWork work = describe(program, program.kernels[k]);
    ProfileRow& row = rows[work.text];
    row.text = work.text;
    row.seconds += seconds[k];
    row.flops += work.flops;
    row.bytes += work.bytes;
    row.kernels.push_back(k);
  }
  std::vector<ProfileRow> result;
  for (auto& [text, row] : rows) result.push_back(std::move(row));
  std::stable_sort(result.begin(), result.end(),
                   [](const ProfileRow& a, const ProfileRow& b) { return a.seconds > b.seconds; });
  return result;
}

}  // namespace fluxion
