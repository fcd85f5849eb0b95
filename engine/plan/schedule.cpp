#include "engine/plan/schedule.h"

#include <algorithm>
#include <map>
#include <queue>
#include <tuple>

#include "engine/graph/op_names.h"
#include "engine/plan/tape_edit.h"

namespace fluxion::plan {

namespace {

void renumber(Kernel& kernel, const Indexed<BufferId, BufferId>& numbers) {
  const auto one = [&](std::int32_t& buffer) { buffer = numbers[BufferId(buffer)].number; };
  const auto tape = [&](Tape& tape) {
    for (TapeLoad& load : tape.loads) one(load.buffer);
    for (TapeStore& store : tape.stores) one(store.buffer);
  };
  if (auto* map = std::get_if<TapeKernel>(&kernel)) tape(map->tape);
  if (auto* contract = std::get_if<ContractKernel>(&kernel)) {
    for (ContractTerm& term : contract->terms) one(term.lhs.buffer), one(term.rhs.buffer);
    tape(contract->epilogue);
  }
  if (auto* op = std::get_if<OpKernel>(&kernel)) {
    for (std::int32_t& buffer : op->inputs) one(buffer);
    for (std::int32_t& buffer : op->outputs) one(buffer);
    for (ContractOperand& view : op->views) one(view.buffer);
  }
}

// The kernel, if it is a barrier whose result need not be in memory; else nullptr.
const OpKernel* barrier(const LoweredKernel& kernel, const Slots& slots) {
  const auto* op = std::get_if<OpKernel>(&kernel.kernel);
  const bool is_barrier =
      op && op->op == Op::after && slots[BufferId(op->outputs[0])].kind == BufferKind::temporary;
  return is_barrier ? op : nullptr;
}

}  // namespace

Waits dissolve_barriers(Kernels& kernels, const Slots& slots) {
  // In the order of the graph: barriers that a barrier reads come first.
  std::vector<std::pair<NodeId, const OpKernel*>> barriers;
  for (const LoweredKernel& kernel : kernels)
    if (const OpKernel* op = barrier(kernel, slots)) barriers.push_back({kernel.position, op});
  if (barriers.empty()) return Waits(kernels.size());
  std::sort(barriers.begin(), barriers.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  Indexed<BufferId, BufferId> stands_for(slots.size());
  for (const BufferId buffer : slots.ids()) stands_for[buffer] = buffer;
  std::map<BufferId, std::set<BufferId>> tokens;  // of barriers' results
  for (const auto& [position, op] : barriers) {
    const BufferId x(op->inputs[0]), token(op->inputs[1]), result(op->outputs[0]);
    std::set<BufferId>& waits = tokens[result];
    for (const BufferId input : {x, token})
      if (const auto found = tokens.find(input); found != tokens.end())
        waits.insert(found->second.begin(), found->second.end());
    waits.insert(stands_for[token]);
    stands_for[result] = stands_for[x];
  }
  Kernels remaining;
  Waits waits;
  for (LoweredKernel& kernel : kernels) {
    if (barrier(kernel, slots)) continue;
    std::set<BufferId> all;
    for (const BufferId buffer : reads(kernel.kernel))
      if (const auto found = tokens.find(buffer); found != tokens.end())
        all.insert(found->second.begin(), found->second.end());
    renumber(kernel.kernel, stands_for);
    remaining.add(std::move(kernel));
    waits.add(std::move(all));
  }
  kernels = std::move(remaining);
  return waits;
}

Indexed<KernelId, bool> commit_set(const Kernels& kernels, const KernelGraph& dependences,
                                   const std::set<BufferId>& donated,
                                   const std::set<BufferId>& outputs) {
  Indexed<KernelId, bool> commits(kernels.size());
  std::vector<KernelId> spreading;
  const auto add = [&](KernelId k) {
    if (commits[k]) return;
    commits[k] = true;
    spreading.push_back(k);
  };
  for (const KernelId k : kernels.ids())
    if (can_overwrite(kernels[k].kernel, donated, outputs)) add(k);
  while (!spreading.empty()) {
    const KernelId k = spreading.back();
    spreading.pop_back();
    for (const KernelId user : dependences.users(k)) add(user);
  }
  return commits;
}

Order find_order(const Kernels& kernels, const Traffic& traffic, const KernelGraph& dependences,
                 const Slots& slots, const Indexed<KernelId, bool>& commits,
                 const Storage& storage) {
  Order order{{}, Indexed<KernelId, std::int32_t>(kernels.size(), -1)};
  Indexed<KernelId, std::size_t> waiting(kernels.size());  // sources that have not run yet
  Indexed<BufferId, std::size_t> unread(slots.size());     // readers that have not run yet
  // The bytes that a kernel frees minus those that it takes. A kernel with a gain runs at once. For
  // example, the gradient of a weight is the last reader of activations; in the order of the graph
  // it would run late and keep them all until then.
  Indexed<KernelId, std::int64_t> gain(kernels.size());
  using Rank = std::tuple<bool, bool, NodeId, KernelId>;
  std::priority_queue<Rank, std::vector<Rank>, std::greater<>> ready;
  const auto enqueue = [&](KernelId k) {
    if (waiting[k] == 0) ready.push({commits[k], gain[k] <= 0, kernels[k].position, k});
  };
  const auto bytes_of = [&](BufferId buffer) {
    const BufferSlot& slot = slots[buffer];
    return slot.kind == BufferKind::temporary
               ? static_cast<std::int64_t>(fluxion::bytes_of(slot.type, storage))
               : 0;
  };
  // The last reader that has not run frees the buffer.
  const auto credit_last_reader = [&](BufferId buffer) {
    for (const KernelId reader : traffic.readers[buffer]) {
      if (order.place[reader] >= 0) continue;
      gain[reader] += bytes_of(buffer);
      enqueue(reader);  // perhaps again, with a new rank; the first entry wins
    }
  };
  for (const KernelId k : kernels.ids()) {
    waiting[k] = dependences.sources(k).size();
    for (const BufferId buffer : writes(kernels[k].kernel)) gain[k] -= bytes_of(buffer);
  }
  for (const BufferId buffer : slots.ids()) {
    unread[buffer] = traffic.readers[buffer].size();
    if (unread[buffer] == 1) credit_last_reader(buffer);
  }
  for (const KernelId k : kernels.ids()) enqueue(k);
  while (!ready.empty()) {
    const KernelId k = std::get<KernelId>(ready.top());
    ready.pop();
    if (order.place[k] >= 0) continue;
    order.place[k] = static_cast<std::int32_t>(order.kernels.size());
    order.kernels.push_back(k);
    for (const BufferId buffer : reads(kernels[k].kernel))
      if (--unread[buffer] == 1) credit_last_reader(buffer);
    for (const KernelId user : dependences.users(k)) {
      --waiting[user];
      enqueue(user);
    }
  }
  return order;
}

void schedule(Kernels kernels, Slots slots, const std::set<std::int64_t>& donated,
              const KernelLimits& limits, const Storage& storage, Program& program) {
  const Waits waits = dissolve_barriers(kernels, slots);
  const Traffic traffic(kernels, slots.size());
  KernelGraph dependences = traffic.dependences();
  for (const KernelId k : kernels.ids())
    for (const BufferId buffer : waits[k])
      if (traffic.writer[buffer]) dependences.connect(traffic.writer[buffer], k);

  std::set<BufferId> donated_buffers, outputs;
  for (const BufferId buffer : slots.ids()) {
    // An empty input has no memory to take over.
    if (slots[buffer].kind == BufferKind::input && donated.contains(slots[buffer].index) &&
        slots[buffer].type.bytes() > 0)
      donated_buffers.insert(buffer);
    if (slots[buffer].kind == BufferKind::output) outputs.insert(buffer);
  }
  const Indexed<KernelId, bool> commits =
      commit_set(kernels, dependences, donated_buffers, outputs);
  const Order order = find_order(kernels, traffic, dependences, slots, commits, storage);
  const Indexed<BufferId, BufferId> taken =
      take_over(kernels, traffic, slots, order, commits, donated_buffers);
  const Arena arena = place_temporaries(kernels, traffic, slots, order, limits, storage);

  program.arena_bytes = arena.bytes;
  program.donations.assign(program.outputs.size(), -1);
  program.commit_point = static_cast<std::int32_t>(order.kernels.size());
  Indexed<BufferId, BufferId> numbers(slots.size());
  for (const BufferId buffer : slots.ids()) {
    BufferSlot& slot = slots[buffer];
    if (taken[buffer]) {
      program.donations[static_cast<std::size_t>(slot.index)] =
          static_cast<std::int32_t>(slots[taken[buffer]].index);
      program.commit_point = std::min(program.commit_point, order.place[traffic.writer[buffer]]);
    }
    if (!traffic.writer[buffer] && traffic.readers[buffer].empty()) continue;
    if (slot.kind == BufferKind::temporary) slot.offset = arena.offsets[buffer];
    numbers[buffer] = BufferId(std::ssize(program.buffers));
    program.buffers.push_back(slot);
  }
  for (const KernelId k : order.kernels) {
    renumber(kernels[k].kernel, numbers);
    program.kernels.push_back(std::move(kernels[k].kernel));
  }
}

}  // namespace fluxion::plan
