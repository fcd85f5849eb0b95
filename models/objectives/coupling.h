// Which noise goes with which sample of a batch. The objectives learn the flow of the pairs that
// they are given: where noise is near its sample, paths hardly cross, and fewer steps follow them
// (Tong et al. 2023, "Improving and generalizing flow-based generative models with minibatch
// optimal transport"; Pooladian et al. 2023, "Multisample flow matching").
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/data/data_set.h"

namespace fluxion {

enum class CouplingKind {
  independent,  // any noise with any sample
  exact,        // the assignment of least squared distance
  sinkhorn,     // noise drawn for each sample from the plan of entropic transport, with replacement
};
std::string to_string(CouplingKind kind);
CouplingKind coupling_kind_from(const std::string& name);  // throws FormatError
const std::vector<std::string>& coupling_names();

struct Coupling {
  CouplingKind kind = CouplingKind::independent;
  double epsilon = 0.05;    // of sinkhorn, in means of the costs above the least of them
  std::string source = {};  // a set of points in place of standard normal noise (source_set.h)
  bool operator==(const Coupling&) const = default;
};
// The largest batch that is coupled, n^2 costs of which are held.
inline constexpr std::int64_t most_coupled = 4096;
// Whether it says more than that each sample gets noise of its own.
bool gives_noise(const Coupling& coupling);
// What model files say of it (ModelInfo::coupling).
std::string coupling_note(const Coupling& coupling);
// Throws Error, saying what would be right.
void check(const Coupling& coupling, std::int64_t batch);

// Standard normal noise [count, ..], or points of the source, for the samples of batch `step`, from
// (seed, position) alone, in the order that the coupling gives it. With `by_class`, noise changes
// places among samples of one label only: each class is then reached from all of the noise, as it
// has to be where samples of a class are asked for. Samples that are not finite keep the noise that
// they have.
std::vector<float> coupled_noise(const Coupling& coupling, const HostBatch& batch, bool by_class,
                                 std::uint64_t seed, std::uint64_t step,
                                 const DataSet* source = nullptr);

}  // namespace fluxion
