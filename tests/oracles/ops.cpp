// Sections 4 and 5 of the schema: ops and composites.
#include "engine/graph/ops.h"

#include "models/layers/einsum.h"
#include "models/layers/image.h"
#include "models/layers/layers.h"
#include "models/layers/losses.h"
#include "models/layers/order.h"
#include "tests/oracles/subject.h"

namespace fluxion::oracles {
namespace {

using nlohmann::json;

// What a mapping sees: inputs, attributes and where to put constants.
struct Call {
  const Inputs& in;
  const json& attributes;
  const Placement& placement;

  const Tensor& operator[](std::size_t k) const { return in.at(k); }
  template <class T>
  T get(const char* name) const {
    return attributes.at(name).get<T>();
  }
  std::int64_t axis() const { return get<std::int64_t>("axis"); }
  Dims axes() const { return get<Dims>("axes"); }
  bool keepdims() const { return get<bool>("keepdims"); }
};
using Mapping = std::function<Tensor(const Call&)>;

template <Tensor (*function)(const Tensor&, Location)>
Tensor unary(const Call& call) {
  return function(call[0], Location::current());
}
template <Tensor (*function)(const Operand&, const Operand&)>
Tensor binary(const Call& call) {
  return function(call[0], call[1]);
}
template <Tensor (*function)(const Tensor&, const Dims&, bool, Location)>
Tensor reduction(const Call& call) {
  return function(call[0], call.axes(), call.keepdims(), Location::current());
}
template <Tensor (*function)(const Tensor&, const Tensor&, std::int64_t, Location)>
Tensor gather(const Call& call) {
  return function(call[0], call[1], call.axis(), Location::current());
}
template <Tensor (*function)(const Tensor&, const Tensor&, const Tensor&, std::int64_t, Location)>
Tensor scatter(const Call& call) {
  return function(call[0], call[1], call[2], call.axis(), Location::current());
}

Tensor transposed_if(const Tensor& x, bool flag) { return flag ? swap_axes(x, -1, -2) : x; }

ConvolutionOptions convolution_options(const Call& call) {
  const auto padding = call.get<std::array<Pair, 2>>("padding");
  return {.stride = call.get<Pair>("stride"),
          .dilation = call.get<Pair>("dilation"),
          .low = {padding[0][0], padding[1][0]},
          .high = {padding[0][1], padding[1][1]},
          .groups = call.get<std::int64_t>("groups")};
}

const std::map<std::string, Mapping>& op_mappings() {
  static const std::map<std::string, Mapping> mappings = {
      {"neg", unary<neg>},
      {"exp", unary<exp>},
      {"expm1", unary<expm1>},
      {"log", unary<log>},
      {"log1p", unary<log1p>},
      {"sin", unary<sin>},
      {"cos", unary<cos>},
      {"tanh", unary<tanh>},
      {"sqrt", unary<sqrt>},
      {"erf", unary<erf>},
      {"abs", unary<abs>},
      {"floor", unary<floor>},
      {"sigmoid", unary<sigmoid>},
      {"silu", unary<silu>},
      {"gelu_tanh", unary<gelu_tanh>},
      {"gelu_erf", unary<gelu_erf>},
      {"relu", unary<relu>},
      {"softplus", unary<softplus>},
      {"rsqrt", unary<rsqrt>},
      {"reciprocal", unary<reciprocal>},
      {"square", unary<square>},
      {"sign", unary<sign>},
      {"add", binary<add>},
      {"sub", binary<sub>},
      {"mul", binary<mul>},
      {"div", binary<div>},
      {"pow", binary<pow>},
      {"maximum", binary<maximum>},
      {"minimum", binary<minimum>},
      {"atan2", binary<atan2>},
      {"lt", binary<lt>},
      {"le", binary<le>},
      {"gt", binary<gt>},
      {"ge", binary<ge>},
      {"eq", binary<eq>},
      {"ne", binary<ne>},
      {"where", [](const Call& call) { return where(call[0], call[1], call[2]); }},
      {"reshape",
       [](const Call& call) { return reshape(call[0], Shape(call.get<Dims>("shape"))); }},
      {"transpose", [](const Call& call) { return transpose(call[0], call.get<Dims>("perm")); }},
      {"broadcast_to",
       [](const Call& call) { return broadcast_to(call[0], Shape(call.get<Dims>("shape"))); }},
      {"slice",
       [](const Call& call) {
         return slice(call[0], call.get<Dims>("start"), call.get<Dims>("stop"),
                      call.get<Dims>("step"));
       }},
      {"pad",
       [](const Call& call) {
         return pad(call[0], call.get<Dims>("low"), call.get<Dims>("high"),
                    call.get<double>("value"));
       }},
      {"concat",
       [](const Call& call) { return concat(std::span<const Tensor>(call.in), call.axis()); }},
      {"flip", [](const Call& call) { return flip(call[0], call.axes()); }},
      {"sum", reduction<sum>},
      {"mean", reduction<mean>},
      {"max", reduction<max>},
      {"min", reduction<min>},
      {"logsumexp", reduction<logsumexp>},
      {"var",
       [](const Call& call) {
         const auto ddof = call.attributes.value("ddof", std::int64_t{0});
         return var(call[0], call.axes(), call.keepdims(), ddof);
       }},
      {"argmax", [](const Call& call) { return argmax(call[0], call.axis(), call.keepdims()); }},
      {"cumsum", [](const Call& call) { return cumsum(call[0], call.axis()); }},
      {"matmul",
       [](const Call& call) {
         return matmul(transposed_if(call[0], call.get<bool>("transpose_a")),
                       transposed_if(call[1], call.get<bool>("transpose_b")));
       }},
      {"take", gather<take>},
      {"take_along_axis", gather<take_along_axis>},
      {"scatter_add", scatter<scatter_add>},
      {"index_add", scatter<index_add>},
      {"prod", reduction<prod>},
      {"sort",
       [](const Call& call) { return sort(call[0], call.axis(), call.get<bool>("descending")); }},
      {"argsort",
       [](const Call& call) {
         return argsort(call[0], call.axis(), call.get<bool>("descending"));
       }},
      {"conv2d",
       [](const Call& call) { return conv2d(call[0], call[1], convolution_options(call)); }},
      {"conv2d_transpose",
       [](const Call& call) {
         return conv2d_transpose(call[0], call[1], convolution_options(call),
                                 call.get<Pair>("output_padding"));
       }},
      {"avg_pool2d",
       [](const Call& call) {
         return avg_pool2d(call[0], call.get<Pair>("window"), call.get<Pair>("stride"));
       }},
      {"upsample_nearest2d",
       [](const Call& call) { return upsample_nearest2d(call[0], call.get<Pair>("factor")); }},
      {"einsum",
       [](const Call& call) { return einsum(call.get<std::string>("equation"), call.in); }},
      {"one_hot",
       [](const Call& call) {
         return one_hot(call[0], call.get<std::int64_t>("num_classes"), call.placement.floating);
       }},
  };
  return mappings;
}

std::optional<Tensor> optional_input(const Call& call, std::size_t k, bool present) {
  return present ? std::optional<Tensor>(call[k]) : std::nullopt;
}

const std::map<std::string, Mapping>& composite_mappings() {
  static const std::map<std::string, Mapping> mappings = {
      {"softmax", [](const Call& call) { return softmax(call[0], call.axis()); }},
      {"log_softmax", [](const Call& call) { return log_softmax(call[0], call.axis()); }},
      {"layer_norm",
       [](const Call& call) {
         const bool affine = call.get<bool>("affine");
         return layer_norm(call[0], call.get<double>("eps"), optional_input(call, 1, affine),
                           optional_input(call, 2, affine));
       }},
      {"group_norm",
       [](const Call& call) {
         const bool affine = call.get<bool>("affine");
         return group_norm(call[0], call.get<std::int64_t>("groups"), call.get<double>("eps"),
                           optional_input(call, 1, affine), optional_input(call, 2, affine));
       }},
      {"rms_norm",
       [](const Call& call) {
         return rms_norm(call[0], call.get<double>("eps"),
                         optional_input(call, 1, call.get<bool>("affine")));
       }},
      {"attention",
       [](const Call& call) {
         AttentionOptions options{
             .scale = call.get<double>("scale"), .causal = call.get<bool>("causal"), .mask = {}};
         options.mask = optional_input(call, 3, call.get<bool>("mask"));
         return attention(call[0], call[1], call[2], options);
       }},
      {"multihead_self_attention",
       [](const Call& call) {
         return multihead_self_attention(call[0], call.get<std::int64_t>("heads"),
                                         {call[1], call[2], call[3], call[4]});
       }},
      {"linear", [](const Call& call) { return linear(call[0], call[1], call[2]); }},
      {"timestep_embedding",
       [](const Call& call) {
         return timestep_embedding(call[0], call.get<std::int64_t>("dim"),
                                   call.get<double>("time_scale"), call.get<double>("max_period"));
       }},
      {"sincos_pos_embed_2d",
       [](const Call& call) {
         return sincos_pos_embed_2d(call.get<std::int64_t>("dim"), call.get<std::int64_t>("grid"),
                                    call.placement.floating, call.placement.device);
       }},
      {"patchify",
       [](const Call& call) { return patchify(call[0], call.get<std::int64_t>("patch")); }},
      {"unpatchify",
       [](const Call& call) {
         return unpatchify(call[0], call.get<std::int64_t>("patch"),
                           call.get<std::int64_t>("height"), call.get<std::int64_t>("width"));
       }},
      {"modulate", [](const Call& call) { return modulate(call[0], call[1], call[2]); }},
      {"pseudo_huber",
       [](const Call& call) { return pseudo_huber(call[0], call[1], call.get<double>("c")); }},
      {"huber",
       [](const Call& call) { return huber(call[0], call[1], call.get<double>("delta")); }},
  };
  return mappings;
}

Subject subject_from(const std::map<std::string, Mapping>& mappings, const Case& oracle) {
  const auto found = mappings.find(oracle.name);
  if (found == mappings.end()) throw NotBuilt(oracle.kind + " " + oracle.name);
  return [mapping = found->second, attributes = oracle.attributes](
             const Inputs& inputs, const Parameters&, const Placement& placement) {
    return Outputs{mapping({inputs, attributes, placement})};
  };
}

}  // namespace

Subject op_subject(const Case& oracle) {
  if (oracle.name == "topk")
    return [attributes = oracle.attributes](const Inputs& inputs, const Parameters&,
                                            const Placement&) {
      const TopK result = topk(inputs.at(0), attributes.at("k").get<std::int64_t>(),
                               attributes.at("axis").get<std::int64_t>());
      return Outputs{result.values, result.indices};
    };
  return subject_from(op_mappings(), oracle);
}
Subject composite_subject(const Case& oracle) { return subject_from(composite_mappings(), oracle); }

}  // namespace fluxion::oracles
