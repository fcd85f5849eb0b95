// Contractions find each other and their epilogues: products that share an operand become one
// kernel, and a map over a product's elements runs on each finished tile of it.
#include "engine/plan/contractions.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "engine/plan/schedule.h"

namespace fluxion::plan {

namespace {

// The kernels as a graph: who reads what others write. Each has a level that lies above those of
// all that it depends on, so that a search for a path is cut off at the level of its end.
class KernelGraph {
 public:
  KernelGraph(std::vector<LoweredKernel>& kernels, std::size_t buffers,
              const std::set<std::int32_t>& kept)
      : kernels_(kernels),
        kept_(kept),
        writer_(buffers, -1),
        readers_(buffers),
        reads_(kernels.size()),
        writes_(kernels.size()),
        level_(kernels.size(), 0),
        seen_(kernels.size(), 0),
        alive_(kernels.size(), true) {
    for (std::size_t k = 0; k < kernels.size(); ++k) connect(static_cast<std::int32_t>(k));
    find_levels();
  }

  LoweredKernel& at(std::int32_t k) { return kernels_[static_cast<std::size_t>(k)]; }
  ContractKernel* contraction(std::int32_t k) { return std::get_if<ContractKernel>(&at(k).kernel); }
  bool alive(std::int32_t k) const { return alive_[static_cast<std::size_t>(k)]; }
  std::int32_t writer(std::int32_t buffer) const {
    return writer_[static_cast<std::size_t>(buffer)];
  }

  // Whether `to` depends on `from` through some other kernel; with `direct`, also without one.
  bool path(std::int32_t from, std::int32_t to, bool direct) {
    const std::int32_t end = level_[static_cast<std::size_t>(to)];
    if (level_[static_cast<std::size_t>(from)] >= end) return false;
    ++stamp_;
    std::vector<std::int32_t> pending{from};
    while (!pending.empty()) {
      const std::int32_t k = pending.back();
      pending.pop_back();
      for (const std::int32_t buffer : writes_[static_cast<std::size_t>(k)])
        for (const std::int32_t reader : readers_[static_cast<std::size_t>(buffer)]) {
          if (reader == to) {
            if (direct || k != from) return true;
            continue;
          }
          const auto r = static_cast<std::size_t>(reader);
          if (level_[r] < end && std::exchange(seen_[r], stamp_) != stamp_)
            pending.push_back(reader);
        }
    }
    return false;
  }

  // Per kernel: whether it depends on k or k on it.
  std::vector<bool> related(std::int32_t k) const {
    std::vector<bool> result(kernels_.size(), false);
    std::vector<std::int32_t> pending;
    const auto visit = [&](std::int32_t other) {
      if (other < 0 || result[static_cast<std::size_t>(other)]) return;
      result[static_cast<std::size_t>(other)] = true;
      pending.push_back(other);
    };
    const auto users = [&](std::int32_t of) {
      for (const std::int32_t buffer : writes_[static_cast<std::size_t>(of)])
        for (const std::int32_t reader : readers_[static_cast<std::size_t>(buffer)]) visit(reader);
    };
    const auto sources = [&](std::int32_t of) {
      for (const std::int32_t buffer : reads_[static_cast<std::size_t>(of)]) visit(writer(buffer));
    };
    const auto spread = [&](const auto& next) {
      next(k);
      while (!pending.empty()) {
        const std::int32_t of = pending.back();
        pending.pop_back();
        next(of);
      }
    };
    spread(users);
    spread(sources);
    return result;
  }

  // `gone` was merged into `into`, whose kernel is already the union.
  void absorb(std::int32_t into, std::int32_t gone) {
    at(into).position = std::max(at(into).position, at(gone).position);
    alive_[static_cast<std::size_t>(gone)] = false;
    for (const std::int32_t buffer : reads_[static_cast<std::size_t>(gone)])
      readers_[static_cast<std::size_t>(buffer)].erase(gone);
    connect(into);
    lift_readers(into, std::max(level_[static_cast<std::size_t>(into)],
                                level_[static_cast<std::size_t>(gone)]));
  }

  // The store of `buffer` in `k` goes if nobody reads it any more.
  void drop_if_unread(std::int32_t k, std::int32_t buffer) {
    readers_[static_cast<std::size_t>(buffer)].erase(k);
    if (!readers_[static_cast<std::size_t>(buffer)].empty() || kept_.contains(buffer)) return;
    Tape& tape = contraction(k)->epilogue;
    std::erase_if(tape.stores, [&](const TapeStore& store) { return store.buffer == buffer; });
    tidy(tape);
    writer_[static_cast<std::size_t>(buffer)] = -1;
  }

 private:
  void connect(std::int32_t k) {
    const auto add = [](std::vector<std::int32_t>& to, const std::vector<std::int32_t>& buffers) {
      to.insert(to.end(), buffers.begin(), buffers.end());
      std::sort(to.begin(), to.end());
      to.erase(std::unique(to.begin(), to.end()), to.end());
    };
    add(reads_[static_cast<std::size_t>(k)], reads(at(k).kernel));
    add(writes_[static_cast<std::size_t>(k)], writes(at(k).kernel));
    for (const std::int32_t buffer : reads(at(k).kernel))
      readers_[static_cast<std::size_t>(buffer)].insert(k);
    for (const std::int32_t buffer : writes(at(k).kernel))
      writer_[static_cast<std::size_t>(buffer)] = k;
  }

  void find_levels() {
    std::vector<int> waiting(kernels_.size(), 0);
    for (std::size_t k = 0; k < kernels_.size(); ++k)
      for (const std::int32_t buffer : reads_[k]) waiting[k] += writer(buffer) >= 0 ? 1 : 0;
    std::vector<std::int32_t> ready;
    for (std::size_t k = 0; k < kernels_.size(); ++k)
      if (waiting[k] == 0) ready.push_back(static_cast<std::int32_t>(k));
    std::size_t done = 0;
    for (; done < ready.size(); ++done) {
      const auto k = static_cast<std::size_t>(ready[done]);
      for (const std::int32_t buffer : writes_[k])
        for (const std::int32_t reader : readers_[static_cast<std::size_t>(buffer)]) {
          std::int32_t& level = level_[static_cast<std::size_t>(reader)];
          level = std::max(level, level_[k] + 1);
          if (--waiting[static_cast<std::size_t>(reader)] == 0) ready.push_back(reader);
        }
    }
    if (done != kernels_.size())
      throw Error("plan: the kernels depend on each other in a circle; this is a planner error");
  }

  // k's level becomes `level`; all that depends on k stays above it.
  void lift_readers(std::int32_t k, std::int32_t level) {
    level_[static_cast<std::size_t>(k)] = level;
    std::vector<std::int32_t> pending{k};
    while (!pending.empty()) {
      const std::int32_t below = pending.back();
      pending.pop_back();
      for (const std::int32_t buffer : writes_[static_cast<std::size_t>(below)])
        for (const std::int32_t reader : readers_[static_cast<std::size_t>(buffer)]) {
          if (reader == k ||
              level_[static_cast<std::size_t>(reader)] > level_[static_cast<std::size_t>(below)])
            continue;
          level_[static_cast<std::size_t>(reader)] = level_[static_cast<std::size_t>(below)] + 1;
          pending.push_back(reader);
        }
    }
  }

  std::vector<LoweredKernel>& kernels_;
  const std::set<std::int32_t>& kept_;
  std::vector<std::int32_t> writer_;
  std::vector<std::set<std::int32_t>> readers_;
  std::vector<std::vector<std::int32_t>> reads_,
      writes_;  // by kernel, with what merged kernels no longer touch
  std::vector<std::int32_t> level_;
  std::vector<int> seen_;  // by the search of this stamp
  int stamp_ = 0;
  std::vector<bool> alive_;
};

bool alike(const ContractKernel& a, const ContractKernel& b) {
  return a.lhs == b.lhs && a.rhs == b.rhs && a.accumulate == b.accumulate && a.batch == b.batch &&
         a.m == b.m && a.n == b.n && a.k == b.k;
}

// b's products and epilogue added to a's kernel, if they fit together.
bool merge_contractions(KernelGraph& graph, std::int32_t a, std::int32_t b,
                        std::span<const BufferSlot> buffers, const KernelLimits& limits) {
  ContractKernel &into = *graph.contraction(a), &from = *graph.contraction(b);
  if (!alike(into, from) || into.results + from.results > limits.max_results) return false;
  if (graph.path(a, b, true) || graph.path(b, a, true)) return false;
  ContractKernel merged = into;
  Tape other = from.epilogue;
  for (TapeInstruction& instruction : other.instructions)
    if (instruction.code == TapeCode::result) instruction.argument += into.results;
  if (!common_axes(merged.epilogue, other)) return false;
  append_tape(merged.epilogue, other);
  for (ContractTerm term : from.terms) {
    term.result += into.results;
    merged.terms.push_back(std::move(term));
  }
  merged.results += from.results;
  if (!fits(merged, buffers, limits)) return false;
  into = std::move(merged);
  graph.absorb(a, b);
  return true;
}

// The result of `kernel` that `buffer` holds unchanged and in the kernel's order, or -1. (A map
// that was attached earlier may have stored a result transposed: whoever reads that buffer in order
// does not run in the order of the tiles. A store in 16 bits has rounded it.)
std::int32_t result_in(const ContractKernel& kernel, std::int32_t buffer) {
  const Tape& epilogue = kernel.epilogue;
  const Dims row_major = row_major_strides(Shape(epilogue.extents));
  for (const TapeStore& store : epilogue.stores) {
    if (store.buffer != buffer) continue;
    if (store.dtype != kernel.accumulate) return -1;
    if (store.address.constant != 0) return -1;
    for (std::size_t k = 0; k < row_major.size(); ++k)
      if (epilogue.extents[k] != 1 && store.address.coefficients[k] != row_major[k]) return -1;
    const TapeInstruction& value = epilogue.instructions[static_cast<std::size_t>(store.value)];
    return value.code == TapeCode::result ? value.argument : -1;
  }
  return -1;
}

// Runs map `m` on the tiles of contraction `c`, whose result it reads.
bool attach(KernelGraph& graph, std::int32_t c, std::int32_t m, std::span<const BufferSlot> buffers,
            const KernelLimits& limits) {
  ContractKernel& contraction = *graph.contraction(c);
  Tape tape = std::get<TapeKernel>(graph.at(m).kernel).tape;
  std::vector<std::int32_t> shared;
  for (const std::int32_t buffer : reads(graph.at(m).kernel)) {
    if (graph.writer(buffer) != c) continue;
    if (result_in(contraction, buffer) < 0) return false;
    shared.push_back(buffer);
  }
  if (shared.empty() || graph.path(c, m, false)) return false;
  // Every result that the map reads must be read in one and the same order.
  for (const std::int32_t buffer : shared)
    if (!reorder_along(tape, buffer)) return false;
  Dims row_major = row_major_strides(Shape(tape.extents));
  std::int64_t elements = 1;
  for (const std::int64_t extent : tape.extents) elements *= extent;
  if (elements != contraction.batch * contraction.m * contraction.n || elements == 0) return false;
  for (const TapeLoad& load : tape.loads)
    if (std::find(shared.begin(), shared.end(), load.buffer) != shared.end())
      for (std::size_t k = 0; k < row_major.size(); ++k)
        if (tape.extents[k] != 1 && load.address.coefficients[k] != row_major[k]) return false;
  for (const std::int32_t buffer : shared)
    replace_load_by_result(tape, buffer, result_in(contraction, buffer));
  ContractKernel merged = contraction;
  if (!common_axes(merged.epilogue, tape)) return false;
  append_tape(merged.epilogue, tape);
  if (!fits(merged, buffers, limits)) return false;
  contraction = std::move(merged);
  graph.absorb(c, m);
  for (const std::int32_t buffer : shared) graph.drop_if_unread(c, buffer);
  return true;
}

}  // namespace

void merge_into_contractions(std::vector<LoweredKernel>& kernels,
                             std::span<const BufferSlot> buffers,
                             const std::set<std::int32_t>& kept,
                             const std::set<std::int32_t>& donated, const KernelLimits& limits) {
  KernelGraph graph(kernels, buffers.size(), kept);
  const auto count = static_cast<std::int32_t>(kernels.size());

  // Pair products that share an operand: above all primal and tangent of one layer.
  for (std::int32_t a = 0; a < count; ++a) {
    if (!graph.alive(a) || !graph.contraction(a)) continue;
    std::optional<std::vector<bool>>
        related;  // in a network whose layers share a weight, every product depends on every other
    for (std::int32_t b = a + 1; b < count; ++b) {
      if (!graph.alive(b) || !graph.contraction(b)) continue;
      const ContractKernel &x = *graph.contraction(a), &y = *graph.contraction(b);
      if (!alike(x, y)) continue;
      bool shared = false;
      for (const ContractTerm& s : x.terms)
        for (const ContractTerm& t : y.terms) shared = shared || s.lhs == t.lhs || s.rhs == t.rhs;
      if (!shared) continue;
      if (!related) related = graph.related(a);
      if (!(*related)[static_cast<std::size_t>(b)] &&
          merge_contractions(graph, a, b, buffers, limits))
        related.reset();
    }
  }

  // Epilogues. A map over several products of one shape brings them together first: dQ K' + Q dK'
  // is one kernel.
  for (std::int32_t m = 0; m < count; ++m) {
    if (!graph.alive(m)) continue;
    const auto* map = std::get_if<TapeKernel>(&graph.at(m).kernel);
    if (!map || map->tape.reduced_axes != 0 || can_overwrite(graph.at(m).kernel, donated, kept))
      continue;
    std::vector<std::int32_t> producers;
    for (const std::int32_t buffer : reads(graph.at(m).kernel)) {
      const std::int32_t writer = graph.writer(buffer);
      if (writer >= 0 && graph.contraction(writer) &&
          std::find(producers.begin(), producers.end(), writer) == producers.end())
        producers.push_back(writer);
    }
    std::sort(producers.begin(), producers.end(), [&](std::int32_t a, std::int32_t b) {
      return graph.at(a).position > graph.at(b).position;
    });
    for (const std::int32_t producer : producers) {
      if (!graph.alive(producer)) continue;
      for (const std::int32_t other : producers)
        if (other != producer && graph.alive(other))
          merge_contractions(graph, producer, other, buffers, limits);
      if (attach(graph, producer, m, buffers, limits)) break;
    }
  }

  std::vector<LoweredKernel> remaining;
  for (std::int32_t k = 0; k < count; ++k)
    if (graph.alive(k)) remaining.push_back(std::move(graph.at(k)));
  kernels = std::move(remaining);
}

}  // namespace fluxion::plan
