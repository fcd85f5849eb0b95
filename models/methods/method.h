// A training method as a value: its name and paper, its options, the state that it keeps, its loss,
// and how what it trains is sampled. Each is one file of this folder and one row of table.cpp; a
// program of its own adds others to a MethodTable (docs/adding-a-method.md). Everything that names
// methods - the command line, configurations, checkpoints, model files, docs/methods.md - reads the
// rows.
#pragma once

#include <functional>
#include <memory>

#include "engine/graph/ops.h"
#include "engine/graph/tree.h"
#include "models/methods/option.h"
#include "models/model_file.h"
#include "models/networks/network.h"

namespace fluxion {

// What a method is asked to train, as far as it is known before anything runs.
struct MethodUse {
  const NetworkConfig& network;
  const MethodOptions& options;
  std::int64_t total_steps = 0;  // updates of the whole run, which schedules go over; 0: unknown
};

// Trees of tensors that a method keeps beside the network's parameters, by name: "teacher", ..
using MethodState = std::map<std::string, Parameters>;

// What a loss is a function of.
struct LossArguments {
  MethodUse use;
  Velocity velocity;             // the network, with the parameters that are differentiated
  const Parameters& parameters;  // those, as `bind` takes them
  const Parameters& learned;     // the method's own, differentiated too
  const MethodState& state;
  // The network with other parameters of the same names, such as a tree of the state.
  std::function<Velocity(const Parameters&)> bind;
  // The same without dropout: a trained model that stays as it is.
  std::function<Velocity(const Parameters&)> bind_trained;
  Tensor x, labels;  // [batch, ..]; i32 [batch], unread where the network has no classes
  Tensor noise;      // of the shape of x, that it goes with; empty: the loss draws its own
  Tensor key;        // u32[2], another at each step: all that is random comes from it
  Tensor step;       // i32, updates done before
};

// A training loss and what is worth logging beside it.
struct LossValue {
  Tensor loss;   // to differentiate
  Tensor error;  // mean squared error per element against the regression target, without the
                 // weights of the loss (alpha-flow: over alpha^2, as its target nears u with alpha)
  static auto members(auto& self) { return std::tie(self.loss, self.error); }
};

// What an update leaves to a method.
struct UpdateArguments {
  MethodUse use;
  const MethodState& state;
  const Parameters& trained;  // the network's parameters, as the update has made them
  Tensor step;                // i32, updates done before this one
  // tree + share (trained - tree) over all parameters: an average that moves by a share, which may
  // be a scalar that depends on the step.
  Parameters average(const Parameters& tree, const Operand& share) const;
};

struct Method {
  std::string name = {};     // as --method takes it: "split-meanflow"
  std::string summary = {};  // a line, without a full stop
  std::string paper = {};    // authors, year, title, where to find it
  std::vector<MethodOption> options = {};

  // What the network has learned to say, and how samples are drawn of it where nobody says how.
  Prediction prediction = Prediction::velocity;
  Wrapping wrapping = Wrapping::none;
  std::function<Path(const MethodOptions&)> path = {};  // none: linear
  DefaultSampling sampling = {};
  std::function<DefaultSampling(const MethodOptions&)> sampling_for = {};  // where options say more
  // The guidance that is trained in; none where samples may be guided later.
  std::function<std::optional<TrainedGuidance>(const MethodOptions&)> guidance = {};

  // Why this can't be trained, as a line that says what would do; "": it can.
  std::function<std::string(const MethodUse&)> refusal = {};

  // Pure: made to be compiled into a step, with every argument but `use` changing from step to
  // step.
  std::function<LossValue(const LossArguments&)> loss = {};

  // It learns the flow of the pairs of sample and noise that it gets, however they were coupled.
  bool takes_pairs = false;
  // It learns from pairs of a trained model alone (DataSet::has_noise); its options teacher, pairs,
  // pair-sampler and pair-steps say how they are made (models/training/pairs.h).
  bool needs_pairs = false;
  bool has_schedule = false;  // it reads use.total_steps, and needs to know them
  // Its velocity is that of any flow from data to noise, not of data under noise that was drawn
  // independently of them: samplers that add noise on their way are refused.
  bool any_flow = false;

  // State; each of these may be empty. All of it is in checkpoints.
  // Parameters of the method's own that are trained with the network's: names and shapes, and fresh
  // values.
  std::function<std::map<std::string, Shape>(const MethodUse&)> learned_shapes = {};
  std::function<Parameters(const MethodUse&, const Tensor& key)> learned = {};
  // Trees of the state that begin as copies of the network's parameters.
  std::vector<std::string> copies = {};
  // Whether the options make use of those copies; none: always.
  std::function<bool(const MethodOptions&)> keeps_copies = {};
  // The option that names a model file of the same network, whose parameters stay as the tree
  // "teacher".
  std::string teacher_option = {};
  // What is wrong with such a model, as the end of a sentence that begins with its file; "":
  // nothing.
  std::function<std::string(const ModelInfo&, const MethodOptions&)> teacher_refusal = {};
  // What the learning rate of the schedule is multiplied by at a step; none: 1.
  std::function<double(const MethodUse&, std::int64_t step)> rate = {};
  // The update before which the run begins anew, as one of the tree "teacher" would that keeps the
  // state: with its parameters, fresh ones of the method's own, and zero moments; none or 0: never.
  std::function<std::int64_t(const MethodUse&)> restart = {};
  // The state after an update; pure, as the loss is. Trees that it leaves out stay as they are.
  std::function<MethodState(const UpdateArguments&)> after_update = {};

  // The option of that name. Throws Error that lists them where there is none.
  const MethodOption& option(const std::string& name) const;
  // The option whose value makes that one change nothing; nullptr: it counts.
  const MethodOption* unread_by(const MethodOption& option, const MethodOptions& values) const;
};

using MethodTable = std::vector<std::shared_ptr<const Method>>;

// The rows of table.cpp.
const MethodTable& built_in_methods();
// The row of that name. Throws FormatError, listing the names, where there is none.
const std::shared_ptr<const Method>& method_named(const std::string& name,
                                                  const MethodTable& table);
// A table with one more row. Throws Error for a name that is there already, a row without a loss,
// or an option that differs from another method's of its name in more than the default.
MethodTable with_method(MethodTable table, Method method);
// "'flow-matching', 'meanflow', .."
std::string method_names(const MethodTable& table);

// A method with a value for each of its options: what a training configuration holds.
struct MethodConfig {
  std::shared_ptr<const Method> method;
  MethodOptions options;

  MethodConfig();  // MeanFlow, with the defaults for images
  MethodConfig(std::shared_ptr<const Method> method, MethodOptions options);
  bool operator==(const MethodConfig& other) const;
};

// The names of a method's trees of state.
std::vector<std::string> state_trees(const MethodConfig& config);

using GivenOptions = std::map<std::string, OptionValue>;

// The method of that name with the values given, and defaults for the others. Throws FormatError
// for a name that the table lacks; Error for an option that the method lacks, or a value out of
// range.
MethodConfig configure(const std::string& name, const GivenOptions& given = {},
                       SampleKind kind = SampleKind::images,
                       const MethodTable& table = built_in_methods());

// Throws Error, saying what would be right, where the method refuses this use, or where its options
// are for classes that the network lacks.
void check(const MethodConfig& method, const NetworkConfig& network, std::int64_t total_steps);

// What files say of a model that this method has trained: prediction, sampling, guidance, open
// class.
void describe(const MethodConfig& method, ModelInfo& info);

// {"method": "meanflow", "options": {"power": 1.0, ..}}; numbers come back bit for bit.
// method_from_json also reads the objectives of older files, {"kind": "meanflow", "p": 1.0, ..}.
// Throws FormatError.
nlohmann::json method_to_json(const MethodConfig& method);
MethodConfig method_from_json(const nlohmann::json& json,
                              const MethodTable& table = built_in_methods());

// The table as a page of Markdown (docs/methods.md).
std::string methods_page(const MethodTable& table);

}  // namespace fluxion
