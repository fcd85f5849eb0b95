// Merges kernels around contractions: products that share an operand become one kernel, and a map
// over a product's elements becomes its epilogue, which runs on each finished tile.
#include "engine/plan/contractions.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "engine/plan/kernel_graph.h"
#include "engine/plan/memory.h"
#include "engine/plan/tape_edit.h"

namespace fluxion::plan {

namespace {

bool alike(const ContractKernel& a, const ContractKernel& b) {
  return a.lhs == b.lhs && a.rhs == b.rhs && a.accumulate == b.accumulate && a.batch == b.batch &&
         a.m == b.m && a.n == b.n && a.k == b.k;
}

bool share_an_operand(const ContractKernel& a, const ContractKernel& b) {
  for (const ContractTerm& s : a.terms)
    for (const ContractTerm& t : b.terms)
      if (s.lhs == t.lhs || s.rhs == t.rhs) return true;
  return false;
}

// The result of `kernel` that `buffer` holds unchanged and in the kernel's order, or -1. An
// epilogue may have stored a result transposed, so that a map over the buffer would not run in the
// order of the tiles, or rounded to 16 bits.
std::int32_t result_in(const ContractKernel& kernel, BufferId buffer) {
  const Tape& epilogue = kernel.epilogue;
  const Dims row_major = row_major_strides(Shape(epilogue.extents));
  for (const TapeStore& store : epilogue.stores) {
    if (store.buffer != buffer.number) continue;
    if (store.dtype != kernel.accumulate || store.address.constant != 0) return -1;
    for (std::size_t k = 0; k < row_major.size(); ++k)
      if (epilogue.extents[k] != 1 && store.address.coefficients[k] != row_major[k]) return -1;
    const TapeInstruction& value = epilogue.instructions[static_cast<std::size_t>(store.value)];
    return value.code == TapeCode::result ? value.argument : -1;
  }
  return -1;
}

class Merger {
 public:
  Merger(Kernels& kernels, const Slots& slots, const std::set<BufferId>& kept,
         const Capabilities& device)
      : kernels_(kernels),
        traffic_(kernels, slots.size()),
        dependences_(traffic_.dependences()),
        slots_(slots),
        kept_(kept),
        device_(device) {}

  // Merges products that share an operand: above all primal and tangent of one layer.
  void pair_products() {
    for (const KernelId a : kernels_.ids()) {
      if (!contraction(a)) continue;
      // Computed once for a: in a network whose layers share a weight, every pair is a candidate,
      // and each product depends on the one before it.
      std::optional<Indexed<KernelId, bool>> related;
      for (KernelId b(a.number + 1); b <= kernels_.last(); ++b.number) {
        if (!contraction(b) || !alike(*contraction(a), *contraction(b)) ||
            !share_an_operand(*contraction(a), *contraction(b)))
          continue;
        if (!related) related = dependences_.related(a);
        if (!(*related)[b] && merge_products(a, b)) related.reset();
      }
    }
  }

  // Makes each map the epilogue of the last product that it reads. Several products of one shape
  // that a map reads are merged first, if they can run at the same time: dQ K' + Q dK' is one
  // kernel.
  void attach_maps(const std::set<BufferId>& donated) {
    for (const KernelId m : kernels_.ids()) {
      if (!dependences_.alive(m)) continue;
      const auto* map = std::get_if<TapeKernel>(&kernels_[m].kernel);
      if (!map || map->tape.reduced_axes != 0 || can_overwrite(kernels_[m].kernel, donated, kept_))
        continue;
      std::vector<KernelId> producers;
      for (const BufferId buffer : reads(kernels_[m].kernel)) {
        const KernelId writer = writer_of(buffer);
        if (writer && contraction(writer) &&
            std::find(producers.begin(), producers.end(), writer) == producers.end())
          producers.push_back(writer);
      }
      std::sort(producers.begin(), producers.end(), [&](KernelId a, KernelId b) {
        return kernels_[a].position > kernels_[b].position;
      });
      for (const KernelId producer : producers) {
        if (!dependences_.alive(producer)) continue;
        for (const KernelId other : producers)
          if (other != producer && dependences_.alive(other) && reads_results(m, other) &&
              !known_before(other, producer) && !known_before(producer, other))
            merge_products(producer, other);
        if (attach(producer, m)) break;
      }
    }
  }

  void drop_merged() {
    Kernels remaining;
    for (const KernelId k : kernels_.ids())
      if (dependences_.alive(k)) remaining.add(std::move(kernels_[k]));
    kernels_ = std::move(remaining);
  }

 private:
  ContractKernel* contraction(KernelId k) {
    return dependences_.alive(k) ? std::get_if<ContractKernel>(&kernels_[k].kernel) : nullptr;
  }
  KernelId writer_of(BufferId buffer) const {
    const KernelId writer = traffic_.writer[buffer];
    return writer ? dependences_.of(writer) : writer;
  }

  // Records that `gone` is now part of `into`, whose kernel already is the union.
  void absorb(KernelId into, KernelId gone) {
    kernels_[into].position = std::max(kernels_[into].position, kernels_[gone].position);
    dependences_.merge(into, gone);
  }

  // Whether all that kernel `m` reads of product `c` are unchanged results.
  bool reads_results(KernelId m, KernelId c) {
    for (const BufferId buffer : reads(kernels_[m].kernel))
      if (writer_of(buffer) == c && result_in(*contraction(c), buffer) < 0) return false;
    return true;
  }

  // Whether b waits for what is computed only after all that a reads: were they one kernel, a's
  // operands would have to be kept until then.
  bool known_before(KernelId a, KernelId b) {
    const std::vector<KernelId> early = dependences_.sources(a), late = dependences_.sources(b);
    return !early.empty() && std::any_of(late.begin(), late.end(), [&](KernelId to) {
      return std::all_of(early.begin(), early.end(), [&](KernelId from) {
        return from != to && dependences_.depends(to, from);
      });
    });
  }

  // Adds b's products and epilogue to a's kernel, if they fit together.
  bool merge_products(KernelId a, KernelId b) {
    ContractKernel &into = *contraction(a), &from = *contraction(b);
    if (!alike(into, from) || into.results + from.results > device_.limits.max_results)
      return false;
    if (dependences_.depends(a, b) || dependences_.depends(b, a)) return false;
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
    if (!fits(merged, slots_.items(), device_.limits, device_.storage)) return false;
    into = std::move(merged);
    absorb(a, b);
    return true;
  }

  // Runs map `m` on the tiles of contraction `c`, whose result it reads.
  bool attach(KernelId c, KernelId m) {
    ContractKernel& product = *contraction(c);
    Tape tape = std::get<TapeKernel>(kernels_[m].kernel).tape;
    std::vector<BufferId> shared;
    for (const BufferId buffer : reads(kernels_[m].kernel)) {
      if (writer_of(buffer) != c) continue;
      if (result_in(product, buffer) < 0) return false;
      shared.push_back(buffer);
    }
    if (shared.empty() || dependences_.would_cycle(std::array{c, m})) return false;
    // The map must read all results in one order.
    for (const BufferId buffer : shared)
      if (!reorder_along(tape, buffer)) return false;
    Dims row_major = row_major_strides(Shape(tape.extents));
    std::int64_t elements = 1;
    for (const std::int64_t extent : tape.extents) elements *= extent;
    if (elements != product.batch * product.m * product.n || elements == 0) return false;
    for (const TapeLoad& load : tape.loads)
      if (std::find(shared.begin(), shared.end(), BufferId(load.buffer)) != shared.end())
        for (std::size_t k = 0; k < row_major.size(); ++k)
          if (tape.extents[k] != 1 && load.address.coefficients[k] != row_major[k]) return false;
    for (const BufferId buffer : shared)
      replace_load_by_result(tape, buffer, result_in(product, buffer));
    ContractKernel merged = product;
    if (!common_axes(merged.epilogue, tape)) return false;
    append_tape(merged.epilogue, tape);
    if (!fits(merged, slots_.items(), device_.limits, device_.storage)) return false;
    product = std::move(merged);
    absorb(c, m);
    for (const BufferId buffer : shared) drop_if_unread(c, buffer);
    return true;
  }

  // Removes the store of `buffer` from `k` if no other kernel reads the buffer.
  void drop_if_unread(KernelId k, BufferId buffer) {
    for (const KernelId reader : traffic_.readers[buffer])
      if (dependences_.of(reader) != k) return;
    if (kept_.contains(buffer)) return;
    Tape& tape = contraction(k)->epilogue;
    std::erase_if(tape.stores,
                  [&](const TapeStore& store) { return store.buffer == buffer.number; });
    tidy(tape);
    traffic_.writer[buffer] = {};
  }

  Kernels& kernels_;
  Traffic traffic_;  // of the kernels before any merge
  KernelGraph dependences_;
  const Slots& slots_;
  const std::set<BufferId>& kept_;
  const Capabilities& device_;
};

}  // namespace

void merge_into_contractions(Kernels& kernels, const Slots& slots, const std::set<BufferId>& kept,
                             const std::set<BufferId>& donated, const Capabilities& device) {
  Merger merger(kernels, slots, kept, device);
  merger.pair_products();
  merger.attach_maps(donated);
  merger.drop_merged();
}

}  // namespace fluxion::plan
