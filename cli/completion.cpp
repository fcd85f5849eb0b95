// `fluxion completion SHELL`: a script that completes commands, options and the words they take.
// It is made of the parsers themselves, so that it can't fall behind them.
#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"

namespace fluxion::cli {

namespace {

struct CompletedOption {
  std::string name, help, type;  // the name with its dashes
  std::vector<std::string> words;
};
struct CompletedCommand {
  std::string name, help;
  std::vector<CompletedOption> options;
};

std::vector<CompletedCommand> commands_of(const CommandLine& program) {
  std::vector<CompletedCommand> result;
  for (const Parser& parser : program.subcommands()) {
    CompletedCommand command{parser.name(), parser.help(), {}};
    for (const Option& option : parser.options())
      for (const std::string& name : option.long_names())
        command.options.push_back({"--" + name, option.help(), option.type(), option.words()});
    command.options.push_back({"--help", "Print this help and exit", "", {}});
    result.push_back(std::move(command));
  }
  return result;
}

std::string joined(const std::vector<std::string>& words) {
  std::string result;
  for (const std::string& word : words) result += (result.empty() ? "" : " ") + word;
  return result;
}

// The first sentence, in single quotes for a shell; `escaped` are characters that the shell's
// completion reads as its own.
std::string quoted_help(const std::string& help, const std::string& escaped) {
  std::string result;
  for (const char letter : help.substr(0, help.find_first_of("\n;"))) {
    if (letter == '\'') {
      result += "'\\''";
      continue;
    }
    if (escaped.find(letter) != std::string::npos) result += '\\';
    result += letter;
  }
  return result;
}

std::string bash_script(const std::vector<CompletedCommand>& commands) {
  std::vector<std::string> names;
  for (const CompletedCommand& command : commands) names.push_back(command.name);
  std::string script =
      "# bash: eval \"$(fluxion completion bash)\"\n"
      "_fluxion() {\n"
      "  local word=\"${COMP_WORDS[COMP_CWORD]}\" before=\"${COMP_WORDS[COMP_CWORD-1]}\" "
      "words=\"\"\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
      "    words=\"" +
      joined(names) +
      " --help --version\"\n"
      "  else\n"
      "    case \"${COMP_WORDS[1]} $before\" in\n";
  for (const CompletedCommand& command : commands)
    for (const CompletedOption& option : command.options)
      if (!option.type.empty())
        script += "      \"" + command.name + " " + option.name + "\") words=\"" +
                  joined(option.words) + "\" ;;\n";
  script += "      *)\n        case \"${COMP_WORDS[1]}\" in\n";
  for (const CompletedCommand& command : commands) {
    std::vector<std::string> options;
    for (const CompletedOption& option : command.options) options.push_back(option.name);
    script += "          " + command.name + ") words=\"" + joined(options) + "\" ;;\n";
  }
  script +=
      "        esac ;;\n"
      "    esac\n"
      "  fi\n"
      "  COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
      "}\n"
      "complete -o default -F _fluxion fluxion\n";
  return script;
}

std::string zsh_script(const std::vector<CompletedCommand>& commands) {
  std::string script =
      "#compdef fluxion\n"
      "# zsh: eval \"$(fluxion completion zsh)\", after compinit\n"
      "_fluxion() {\n"
      "  if (( CURRENT == 2 )); then\n"
      "    local -a commands=(\n";
  for (const CompletedCommand& command : commands)
    script += "      '" + command.name + ":" + quoted_help(command.help, ":\\") + "'\n";
  script +=
      "    )\n"
      "    _describe command commands\n"
      "    return\n"
      "  fi\n"
      "  case $words[2] in\n";
  for (const CompletedCommand& command : commands) {
    script += "    " + command.name + ")\n      _arguments \\\n";
    for (const CompletedOption& option : command.options) {
      script += "        '" + option.name + "[" + quoted_help(option.help, "[]\\") + "]";
      if (!option.type.empty())
        script += ":" + quoted_help(option.type, ":\\") + ":" +
                  (option.words.empty() ? "_files" : "(" + joined(option.words) + ")");
      script += "' \\\n";
    }
    script += "        '*:file:_files' ;;\n";
  }
  script +=
      "  esac\n"
      "}\n"
      "compdef _fluxion fluxion\n";
  return script;
}

std::string fish_script(const std::vector<CompletedCommand>& commands) {
  std::string script = "# fish: fluxion completion fish | source\n";
  for (const CompletedCommand& command : commands) {
    script += "complete -c fluxion -n __fish_use_subcommand -f -a " + command.name + " -d '" +
              quoted_help(command.help, "\\") + "'\n";
    for (const CompletedOption& option : command.options) {
      script += "complete -c fluxion -n '__fish_seen_subcommand_from " + command.name + "' -l " +
                option.name.substr(2);
      if (!option.words.empty()) {
        script += " -x -a '" + joined(option.words) + "'";
      } else if (!option.type.empty()) {
        script += " -r";
      }
      script += " -d '" + quoted_help(option.help, "\\") + "'\n";
    }
  }
  return script;
}

}  // namespace

Command add_completion(CommandLine& program, const Streams& streams) {
  auto shell = std::make_shared<std::string>();
  const Parser parser =
      program.add_subcommand("completion", "Print a script that completes commands and options");
  parser.add_option("shell", *shell, "bash, zsh or fish")
      .check(one_of({"bash", "zsh", "fish"}))
      .type_name("SHELL")
      .required();
  parser.footer(
      "Examples, for a shell's start-up file:\n"
      "  eval \"$(fluxion completion bash)\"\n"
      "  eval \"$(fluxion completion zsh)\"\n"
      "  fluxion completion fish | source");
  const std::vector<CompletedCommand> commands = commands_of(program);
  return {parser, [shell, commands, &streams] {
            streams.out << (*shell == "bash"  ? bash_script(commands)
                            : *shell == "zsh" ? zsh_script(commands)
                                              : fish_script(commands))
                        << std::flush;
            return 0;
          }};
}

}  // namespace fluxion::cli
