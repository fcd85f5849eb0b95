#include "models/objectives/coupling.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "engine/error.h"
#include "engine/number_text.h"
#include "engine/single_precision.h"
#include "models/data/random.h"
#include "models/data/source_set.h"
#include "models/evaluation/distances.h"
#include "models/evaluation/transport.h"
#include "models/names.h"

namespace fluxion {
namespace {

constexpr EnumNames<CouplingKind, 3> coupling_kinds = {{{CouplingKind::independent, "independent"},
                                                        {CouplingKind::exact, "exact"},
                                                        {CouplingKind::sinkhorn, "sinkhorn"}}};

// Keep the draws of noise and of a plan's columns apart from those of the data.
constexpr std::uint32_t noise_purpose = 0x6e6f6973u, plan_purpose = 0x706c616eu;

std::vector<float> gathered(const std::vector<float>& values, const std::vector<std::size_t>& rows,
                            std::size_t elements) {
  std::vector<float> result;
  result.reserve(rows.size() * elements);
  for (const std::size_t row : rows)
    result.insert(result.end(), values.begin() + static_cast<std::ptrdiff_t>(row * elements),
                  values.begin() + static_cast<std::ptrdiff_t>((row + 1) * elements));
  return result;
}

// The column that share `u` of a plan's row reaches.
std::size_t drawn_column(std::span<const double> row, double u) {
  double total = 0;
  for (const double mass : row) total += mass;
  double left = u * total;
  for (std::size_t j = 0; j + 1 < row.size(); ++j) {
    left -= row[j];
    if (left < 0) return j;
  }
  return row.size() - 1;
}

}  // namespace

std::string to_string(CouplingKind kind) { return name_of(coupling_kinds, kind); }

CouplingKind coupling_kind_from(const std::string& name) {
  return value_named(coupling_kinds, name, "coupling");
}

const std::vector<std::string>& coupling_names() {
  static const std::vector<std::string> names = names_of(coupling_kinds);
  return names;
}

bool gives_noise(const Coupling& coupling) {
  return coupling.kind != CouplingKind::independent || !coupling.source.empty();
}

std::string coupling_note(const Coupling& coupling) {
  if (coupling.kind != CouplingKind::independent) return to_string(coupling.kind);
  return coupling.source.empty() ? "" : "source";
}

void check(const Coupling& coupling, std::int64_t batch) {
  if (!(coupling.epsilon > 0) || !fits_single(coupling.epsilon))
    throw Error("train: the epsilon of a coupling must be above 0 and finite, got " +
                number_text(coupling.epsilon));
  if (coupling.kind != CouplingKind::independent && batch > most_coupled)
    throw Error("train: a coupling goes over batches of at most " + std::to_string(most_coupled) +
                ", got " + std::to_string(batch));
}

std::vector<float> coupled_noise(const Coupling& coupling, const HostBatch& batch, bool by_class,
                                 std::uint64_t seed, std::uint64_t step, const DataSet* source) {
  const std::size_t count = batch.labels.size();
  const std::size_t elements = count == 0 ? 0 : batch.x.size() / count;
  std::vector<float> noise(count * elements);
  if (source) {
    const auto number = static_cast<std::int64_t>(count);
    noise = source_points(*source, SourceUse::training, seed,
                          static_cast<std::int64_t>(step) * number, number);
  }
  for (std::size_t i = 0; i < count && !source; ++i) {
    RandomSequence random(seed, step * count + i, noise_purpose);
    for (std::size_t k = 0; k < elements; ++k) noise[i * elements + k] = random.normal();
  }
  if (coupling.kind == CouplingKind::independent || elements == 0) return noise;

  std::map<std::int32_t, std::vector<std::size_t>> groups;  // of rows
  for (std::size_t i = 0; i < count; ++i)
    if (std::all_of(batch.x.begin() + static_cast<std::ptrdiff_t>(i * elements),
                    batch.x.begin() + static_cast<std::ptrdiff_t>((i + 1) * elements),
                    [](float value) { return std::isfinite(value); }))
      groups[by_class ? batch.labels[i] : 0].push_back(i);
  std::vector<float> result = noise;
  for (const auto& [label, rows] : groups) {
    const std::size_t n = rows.size();
    const std::vector<float> x = gathered(batch.x, rows, elements),
                             e = gathered(noise, rows, elements);
    const auto size = static_cast<std::int64_t>(n), dim = static_cast<std::int64_t>(elements);
    std::vector<double> cost(n * n);
    for_distances({x, size, dim}, {e, size, dim}, 1,
                  [&](std::int64_t row, std::int64_t, std::span<const double> squared) {
                    std::copy(squared.begin(), squared.end(), cost.begin() + row * size);
                  });
    std::vector<std::size_t> column_of;
    if (coupling.kind == CouplingKind::exact) {
      column_of = best_assignment(cost, n);
    } else {
      const std::vector<double> plan = sinkhorn_plan(cost, n, {.epsilon = coupling.epsilon});
      for (std::size_t i = 0; i < n; ++i) {
        RandomSequence random(seed, step * count + rows[i], plan_purpose);
        column_of.push_back(drawn_column(std::span(plan).subspan(i * n, n), random.uniform()));
      }
    }
    for (std::size_t i = 0; i < n; ++i)
      std::copy_n(e.begin() + static_cast<std::ptrdiff_t>(column_of[i] * elements), elements,
                  result.begin() + static_cast<std::ptrdiff_t>(rows[i] * elements));
  }
  return result;
}

}  // namespace fluxion
