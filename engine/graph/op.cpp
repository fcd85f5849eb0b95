#include "engine/graph/op_names.h"

#include <array>

#include "engine/graph/region.h"
#include "engine/number_text.h"

namespace fluxion {

namespace {
template <class T, class... Ts>
constexpr std::size_t index_in(std::variant<Ts...>*) {
  std::size_t index = 0, found = sizeof...(Ts);
  ((std::is_same_v<T, Ts> ? (found = index, ++index) : ++index), ...);
  return found;
}

constexpr std::array<OpInfo, op_count> op_infos = {{
#define FLUXION_OP(name, inputs, outputs, attributes, op_class, rule) \
  {#name, inputs, outputs, OpClass::op_class,                         \
   index_in<attributes>(static_cast<Attributes*>(nullptr))},
#include "engine/graph/ops.def"
#undef FLUXION_OP
}};
}  // namespace

const OpInfo& info(Op op) { return op_infos[static_cast<std::size_t>(op)]; }

std::string to_string(const Attributes& attributes) {
  struct Visitor {
    std::string operator()(const NoAttributes&) const { return ""; }
    std::string operator()(const IndexAttributes& a) const {
      return "index=" + std::to_string(a.index);
    }
    std::string operator()(const ValueAttributes& a) const {
      return "value=" + number_text(a.value);
    }
    std::string operator()(const AxisAttributes& a) const {
      return "axis=" + std::to_string(a.axis);
    }
    std::string operator()(const AxesAttributes& a) const { return "axes=" + to_string(a.axes); }
    std::string operator()(const DTypeAttributes& a) const {
      return "dtype=" + std::string(to_string(a.dtype));
    }
    std::string operator()(const ShapeAttributes& a) const { return "shape=" + to_string(a.shape); }
    std::string operator()(const SliceAttributes& a) const {
      return "start=" + to_string(a.start) + " stop=" + to_string(a.stop) +
             " step=" + to_string(a.step);
    }
    std::string operator()(const PadAttributes& a) const {
      return "low=" + to_string(a.low) + " high=" + to_string(a.high) +
             " value=" + number_text(a.value);
    }
    std::string operator()(const RandomAttributes& a) const {
      return "shape=" + to_string(a.shape) + " domain=" + std::to_string(a.domain);
    }
    std::string operator()(const EpsilonAttributes& a) const {
      return "epsilon=" + number_text(a.epsilon);
    }
    std::string operator()(const SortAttributes& a) const {
      return "axis=" + std::to_string(a.axis) + (a.descending ? " descending" : "");
    }
    std::string operator()(const WindowAttributes& a) const {
      return "kernel=" + to_string(a.kernel) + " stride=" + to_string(a.stride) +
             " dilation=" + to_string(a.dilation);
    }
    std::string operator()(const ConvAttributes& a) const {
      return "stride=" + to_string(a.stride) + " dilation=" + to_string(a.dilation) +
             " spread=" + to_string(a.spread) + " low=" + to_string(a.low) +
             " high=" + to_string(a.high) + " groups=" + std::to_string(a.groups) +
             (a.result == a.accumulate ? "" : " " + (*this)(a.contraction()));
    }
    std::string operator()(const ContractAttributes& a) const {
      if (a.result == a.accumulate) return "";
      return "accumulate=" + std::string(to_string(a.accumulate)) +
             " result=" + std::string(to_string(a.result));
    }
    std::string operator()(const AttentionAttributes& a) const {
      return "scale=" + number_text(a.scale) + (a.causal ? " causal" : "");
    }
    std::string operator()(const RegionAttributes& a) const {
      return a.region ? to_string(*a.region) : "no region";
    }
  };
  return std::visit(Visitor{}, attributes);
}

}  // namespace fluxion
