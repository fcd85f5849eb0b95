// fluxion graph.
#include <nlohmann/json.hpp>

#include "models/model_file.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"
#include "tests/show/well_formed.h"

using namespace fluxion;
using namespace fluxion::testing;

TEST_CASE("without options the example of the tour is drawn, and the file named", "[cli][graph]") {
  const ScratchFolder folder;
  const ProgramRun run = run_program("graph", folder.path());
  INFO(run.error);
  REQUIRE(run.code == 0);
  CHECK(contains(run.out, "silu-product-jvp-graph.svg\n"));
  CHECK(folder.files() == 1);
  const std::string svg = text_of(folder / "silu-product-jvp-graph.svg");
  CHECK(xml_fault(svg) == "");
  for (const char* part : {">primal<", ">tangent<", ">sigmoid<", ">dx<", ">dy<"})
    CHECK(contains(svg, part));
}

TEST_CASE("every function has every picture", "[cli][graph]") {
  const ScratchFolder folder;
  const ProgramRun listed = run_program("graph --list --json");
  REQUIRE(listed.code == 0);
  const nlohmann::json functions = nlohmann::json::parse(listed.out);
  REQUIRE(functions.size() >= 10);
  const ProgramRun readable = run_program("graph --list");
  for (const auto& function : functions) {
    const auto name = function.at("name").get<std::string>();
    CHECK(contains(readable.out, "  " + name + " "));
    for (const std::string transform : {"none", "jvp", "vjp", "grad-of-jvp"})
      for (const std::string stage : {"graph", "simplified", "plan", "memory"}) {
        const ProgramRun run = run_program("graph " + name + " --transform " + transform +
                                               " --stage " + stage + " --out picture.svg",
                                           folder.path());
        INFO(name << " " << transform << " " << stage << ": " << run.error);
        REQUIRE(run.code == 0);
        CHECK(contains(run.out, "picture.svg\n"));
        CHECK(xml_fault(text_of(folder / "picture.svg")) == "");
      }
    const ProgramRun dot = run_program("graph " + name + " --format dot");
    CHECK(dot_fault(dot.out) == "");
    CHECK(contains(run_program("graph " + name + " --format text").out, "return %"));
  }
}

TEST_CASE("text and DOT go to standard output, or to the file whose name asks for them",
          "[cli][graph]") {
  const ScratchFolder folder;
  const std::string text = run_program("graph softmax --format text").out;
  CHECK(text.starts_with("inputs: x, dx\noutputs: y, dy\n\n%0 = parameter"));
  CHECK(contains(text, "= softmax %2 {axis=1}"));
  CHECK(contains(run_program("graph softmax --transform none --stage plan --format text").out,
                 "kernel 0: rows [4 | 8]"));
  CHECK(contains(run_program("graph attention --transform none --stage memory --format text").out,
                 "live bytes"));
  CHECK(run_program("graph softmax --out a.dot", folder.path()).code == 0);
  CHECK(dot_fault(text_of(folder / "a.dot")) == "");
  CHECK(run_program("graph softmax --out a.txt", folder.path()).code == 0);
  CHECK(contains(text_of(folder / "a.txt"), "return %"));
  CHECK(xml_fault(run_program("graph softmax --out -").out) == "");

  const nlohmann::json object =
      nlohmann::json::parse(run_program("graph softmax --json --out a.svg", folder.path()).out);
  CHECK(object.at("function") == "softmax");
  CHECK(object.at("transform") == "jvp");
  CHECK(object.at("out") == "a.svg");
}

TEST_CASE("sizes and the arguments to differentiate in can be chosen", "[cli][graph]") {
  CHECK(contains(run_program("graph softmax --format text --batch 3 --width 5").out, "f32[3, 5]"));
  const std::string both =
      run_program("graph silu-product --transform vjp --wrt x,w --format dot").out;
  CHECK(contains(both, "\"x bar\""));
  CHECK(contains(both, "\"w bar\""));
  const std::string one = run_program("graph silu-product --transform vjp --format dot").out;
  CHECK_FALSE(contains(one, "\"x bar\""));
  CHECK(contains(one, "\"w bar\""));
  CHECK(contains(run_program("graph mlp --along t --format dot").out, "\"dt\\n"));
  // The gradient of a loss that contains a JVP goes to the parameters, and the tangent ends in the
  // target.
  const std::string loss = run_program("graph meanflow-loss --transform vjp --format dot").out;
  for (const char* part : {"cluster_primal", "cluster_coefficient", "cluster_tangent",
                           "cluster_cotangent", "\"target\"", "\"layers.0.weight bar\""})
    CHECK(contains(loss, part));
}

TEST_CASE("a model's network is drawn from its file", "[cli][graph]") {
  const ScratchFolder folder;
  const ProgramRun trained = run_program(
      "train --data glyphs --image-size 8 --patch 4 --width 16 --heads 2 --depth 1 --steps 1 "
      "--batch 4 --threads 1 --out run --json",
      folder.path());
  INFO(trained.error);
  REQUIRE(trained.code == 0);
  for (const std::string stage : {"graph", "plan", "memory"}) {
    const ProgramRun run =
        run_program("graph --model run/model.safetensors --stage " + stage, folder.path());
    INFO(run.error);
    REQUIRE(run.code == 0);
    CHECK(xml_fault(text_of(folder / ("dit-" + stage + ".svg"))) == "");
  }
  CHECK(contains(text_of(folder / "dit-graph.svg"), ">blocks.0.attn.qkv<"));
  const ProgramRun whole =
      run_program("graph --model run/model.safetensors --fold none --out whole.svg", folder.path());
  CHECK(whole.code == 0);
  CHECK(contains(text_of(folder / "whole.svg"), ">blocks.0.attn.qkv.weight<"));
}

TEST_CASE("a large picture is folded and says so; --fold chooses", "[cli][graph]") {
  const ScratchFolder folder;
  const auto drawn = [&](const std::string& options) {
    const ProgramRun run = run_program("graph " + options + " --out a.svg", folder.path());
    INFO(options << "\n" << run.error);
    CHECK(run.code == 0);
    return run.out;
  };
  const std::string loss = "meanflow-loss --transform vjp";
  CHECK(contains(drawn(loss), "77 nodes, in 19 boxes (--fold layers; --fold none draws each)"));
  const std::string svg = text_of(folder / "a.svg");
  for (const char* part :
       {">67 nodes, 10 arguments, 6 outputs in 19 boxes<", ">layers.0<", ">layers.1<",
        ">stop_gradient<", ">loss bar<", ">15 nodes, 2 arguments<"})
    CHECK(contains(svg, part));
  CHECK(drawn(loss + " --fold auto") == drawn(loss));
  CHECK(text_of(folder / "a.svg") == svg);
  CHECK(contains(drawn(loss + " --fold none"), "vjp, graph: 77 nodes\n"));
  CHECK(contains(text_of(folder / "a.svg"), ">layers.0.weight bar<"));
  CHECK(contains(drawn(loss + " --fold ops"), "--fold ops"));
  // A small one is not.
  CHECK(contains(drawn("silu-product"), "silu-product, jvp, graph: 13 nodes\n"));
  // DOT shows all, unless it is asked for less.
  CHECK(contains(run_program("graph " + loss + " --format dot").out, "\"layers.0.weight bar\""));
  const std::string dot = run_program("graph " + loss + " --format dot --fold blocks").out;
  CHECK(dot_fault(dot) == "");
  CHECK_FALSE(contains(dot, "\"layers.0.weight bar\""));
  // What is too large all the same is said so, and --fold named where it was refused.
  const std::string chain = "graph tanh-chain --depth 200 --transform vjp --out a.svg";
  const std::string kept = run_program(chain + " --fold none", folder.path()).error;
  CHECK(contains(kept, "2605 boxes make a large picture; --fold auto, or --format dot"));
  CHECK(contains(run_program(chain, folder.path()).error, "a large picture; --format dot"));
  const auto object = nlohmann::json::parse(
      run_program("graph " + loss + " --json --out a.svg", folder.path()).out);
  CHECK(object.at("fold") == "layers");
}

TEST_CASE("buffers of plans and memory have names", "[cli][graph]") {
  const std::string block = "graph dit-block --stage ";
  const std::string plan = run_program(block + "plan --out -").out;
  for (const char* part : {">attn.qkv.weight<", ">r1 += b", " x attn.qkv.weight<", ">attn.qkv add<",
                           ">attention_dual.0<", ">dy<"})
    CHECK(contains(plan, part));
  const std::string memory = run_program(block + "memory --format text").out;
  CHECK(contains(memory, "  attn.qkv add"));
  CHECK(contains(memory, "  attention_dual.1"));
  CHECK(contains(run_program(block + "memory --out -").out, "attention_dual.1: f32["));
}

TEST_CASE("a function that was saved is shown in every form after it was loaded", "[cli][graph]") {
  const ScratchFolder folder;
  for (const std::string function : {"layer-norm", "attention", "meanflow-loss"}) {
    const ProgramRun saved =
        run_program("graph " + function + " --transform vjp --save f.graph", folder.path());
    INFO(saved.error);
    REQUIRE(saved.code == 0);
    CHECK(contains(saved.out, function + ", vjp: "));
    CHECK(contains(saved.out, "\nf.graph\n"));
    // What a device makes of the file is what it makes of the function.
    for (const std::string stage : {"simplified", "plan", "memory"}) {
      const std::string options = " --format text --stage " + stage;
      const ProgramRun direct = run_program("graph " + function + " --transform vjp" + options),
                       loaded = run_program("graph --load f.graph" + options, folder.path());
      INFO(function << ", " << stage << "\n" << loaded.error);
      REQUIRE(loaded.code == 0);
      if (stage != "simplified") CHECK(loaded.out == direct.out);
    }
    const ProgramRun dot = run_program("graph --load f.graph --format dot", folder.path());
    CHECK(dot_fault(dot.out) == "");
    CHECK(contains(dot.out, "cluster_cotangent"));
    CHECK(run_program("graph --load f.graph", folder.path()).code == 0);
    CHECK(xml_fault(text_of(folder / "f-graph.svg")) == "");
    // Saved again, it is the same file.
    CHECK(run_program("graph --load f.graph --save again.graph", folder.path()).code == 0);
    CHECK(text_of(folder / "again.graph") == text_of(folder / "f.graph"));
  }
  const nlohmann::json object =
      nlohmann::json::parse(run_program("graph softmax --save s.graph --json", folder.path()).out);
  CHECK(object.at("saved") == "s.graph");
  CHECK(object.at("inputs") == 2);
}

TEST_CASE("the largest sizes can be planned for, and a format can be asked for under any name",
          "[cli][graph]") {
  const ScratchFolder folder;
  for (const char* arguments :
       {"dit-block --transform grad-of-jvp --batch 8192 --tokens 1024 --width 2048 --heads 1",
        "silu-product --batch 16384 --width 65536",
        "attention --transform grad-of-jvp --heads 4 --tokens 65536 --width 1024",
        "layer-norm --batch 8 --tokens 65536 --width 1024",
        "dit-block --transform grad-of-jvp --batch 8192 --width 65536 --tokens 1 --heads 1"}) {
    const ProgramRun run = run_program(
        "graph " + std::string(arguments) + " --stage memory --out picture.svg", folder.path());
    INFO(arguments << "\n" << run.error);
    CHECK(run.code == 0);
  }
  CHECK(run_program("graph softmax --format text --out notes.md", folder.path()).code == 0);
  CHECK(contains(text_of(folder / "notes.md"), "return %"));
  CHECK(run_program("graph softmax --out picture", folder.path()).code == 0);
  CHECK(xml_fault(text_of(folder / "picture")) == "");
}

TEST_CASE("a list of names takes none of the words after it", "[cli][graph]") {
  const ScratchFolder folder;
  const ProgramRun run =
      run_program("graph --format text --transform vjp --wrt x softmax", folder.path());
  INFO(run.error);
  CHECK(run.code == 0);
  const ProgramRun import = run_program(
      "import --predicts velocity --ignore foo --rename a=b --fill positions FILE --out X",
      folder.path());
  CHECK_THAT(import.error, has_text("FILE"));
  CHECK(import.code == 1);  // there is no such file, not no argument
}

TEST_CASE("what can't be drawn is one line on standard error", "[cli][graph]") {
  const ScratchFolder folder;
  struct Case {
    const char *arguments, *says;
    int code;
  };
  for (const Case& wrong :
       {Case{"graph sotfmax", "softmax", 1},
        Case{"graph softmax --wrt q --transform vjp", "it has x", 1},
        Case{"graph mlp --along w", "layers.0.weight", 1},
        Case{"graph softmax --stage memory --format dot", "svg or text", 1},
        Case{"graph --model none.safetensors", "none.safetensors", 1},
        Case{"graph dit-block --width 9 --heads 2", "heads", 1},
        Case{"graph softmax --out no/folder.svg", "no/folder.svg", 1},
        Case{"graph softmax --transform fly", "--transform", 2},
        Case{"graph softmax --fold layer", "--fold", 2},
        Case{"graph softmax --stage memory --fold ops", "--fold", 1},
        Case{"graph softmax --format text --fold none", "--fold", 1},
        Case{"graph softmax --batch 0", "--batch", 2},
        Case{"graph softmax --model m.safetensors", "--model", 2},
        // A name that says no format.
        Case{"graph softmax --out x.png", ".svg, .dot, .gv and .txt", 1},
        // What would have no effect.
        Case{"graph softmax --wrt zz", "--wrt belongs to --transform vjp", 1},
        Case{"graph silu-product --transform none --along nonsense",
             "--along belongs to --transform jvp", 1},
        Case{"graph softmax --transform vjp --along x", "--along", 1},
        Case{"graph tanh-chain --heads 7 --tokens 3",
             "--tokens has no effect on tanh-chain, which heeds --batch", 1},
        Case{"graph --model m.safetensors --width 3",
             "--width has no effect on --model, which heeds --batch", 1},
        Case{"graph --list --wrt x", "--list", 2}, Case{"graph --load none.graph", "none.graph", 1},
        Case{"graph softmax --load f.graph", "--load", 2},
        Case{"graph --load f.graph --batch 3", "--load", 2},
        Case{"graph softmax --save no/f.graph", "no/f.graph", 1},
        // Too much of something.
        Case{"graph dit-block --batch 65536 --tokens 65536 --width 65536 --heads 1 --stage memory",
             "--batch 65536, --width 65536, --tokens 65536", 1},
        Case{"graph attention --heads 65536 --tokens 65536 --stage plan",
             "--tokens 65536, --heads 65536", 1},
        Case{"graph tanh-chain --depth 65536", "--depth", 2}}) {
    const ProgramRun run = run_program(wrong.arguments, folder.path());
    INFO("fluxion " << wrong.arguments << "\n" << run.error);
    CHECK(run.code == wrong.code);
    CHECK(run.out.empty());
    CHECK(occurrences(run.error, "\n") == 1);
    CHECK(contains(run.error, wrong.says));
    CHECK(folder.files() == 0);
  }
}
