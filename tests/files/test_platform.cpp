#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <chrono>
#include <thread>

#include "engine/error.h"
#include "engine/platform/file.h"
#include "engine/platform/interrupt.h"
#include "engine/platform/machine.h"
#include "engine/platform/terminal.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// Files may grow to this size and no further while it lives: as good as a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    old_handler_ = ::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, old_handler_);
  }

 private:
  rlimit before_{};
  void (*old_handler_)(int) = nullptr;
};

}  // namespace

TEST_CASE("platform: a mapped file shows its bytes", "[files]") {
  const ScratchFolder folder;
  replace_file(folder / "a", "some text");
  MappedFile file(folder / "a");
  REQUIRE(file.bytes().size() == 9);
  CHECK(static_cast<char>(file.bytes()[5]) == 't');
  const MappedFile moved = std::move(file);
  CHECK(moved.bytes().size() == 9);
  CHECK(file.bytes().empty());
  replace_file(folder / "empty", "");
  CHECK(MappedFile(folder / "empty").bytes().empty());
  SECTION("a map outlives the replacement of its file") {
    replace_file(folder / "a", "x");
    CHECK(static_cast<char>(moved.bytes()[5]) == 't');
  }
}

TEST_CASE("platform: a mapped file that is cut short reads as zeros and says so", "[files]") {
  constexpr std::size_t bytes = 1 << 18;
  const ScratchFolder folder;
  for (const std::size_t left : {std::size_t{0}, std::size_t{70000}, bytes - 1}) {
    replace_file(folder / "a", std::string(bytes, 'x'));
    const MappedFileGuard guard;
    const MappedFile file(folder / "a");
    CHECK_FALSE(file.cut_short());
    CHECK_NOTHROW(file.check_whole());
    std::filesystem::resize_file(folder / "a", left);
    if (left > 0) CHECK(static_cast<char>(file.bytes()[0]) == 'x');
    CHECK(static_cast<char>(file.bytes()[bytes - 1]) == '\0');
    CHECK(file.cut_short());
    const std::string message = message_of<IoError>([&] { file.check_whole(); });
    CHECK(contains(message, (folder / "a").string()));
    CHECK(contains(message, "cut short"));
  }
}

TEST_CASE("platform: mapping what can't be mapped names the file and the reason", "[files]") {
  const ScratchFolder folder;
  const std::string missing = message_of<IoError>([&] { MappedFile(folder / "missing"); });
  CHECK(contains(missing, (folder / "missing").string()));
  CHECK(contains(missing, "No such file"));
  CHECK(contains(message_of<IoError>([&] { MappedFile{folder.path()}; }), "directory"));
  CHECK(contains(message_of<IoError>([&] { MappedFile("/dev/null"); }), "not a regular file"));
}

TEST_CASE("platform: replacing a file is all or nothing", "[files]") {
  const ScratchFolder folder;
  const auto path = folder / "model";
  replace_file(path, "old");
  CHECK(text_of(path) == "old");

  SECTION("nothing happens without commit") {
    {
      ReplacementFile file(path);
      file.write("half of the n");
      CHECK(text_of(path) == "old");
    }
    CHECK(text_of(path) == "old");
    CHECK(folder.files() == 1);
  }
  SECTION("a program that ends in the middle can remove what it began") {
    ReplacementFile file(path);
    file.write("half of the n");
    CHECK(folder.files() == 2);
    remove_temporary_files();
    CHECK(folder.files() == 1);
    CHECK_THROWS_AS(file.commit(), IoError);
    CHECK(text_of(path) == "old");
  }
  SECTION("commit replaces and leaves no other file behind") {
    ReplacementFile file(path);
    file.write("new ");
    file.write("content");
    file.commit();
    CHECK(text_of(path) == "new content");
    CHECK(folder.files() == 1);
    CHECK_THROWS_AS(file.write("more"), Error);
    CHECK_THROWS_AS(file.commit(), Error);
  }
  SECTION("a disk that fills up leaves the old file whole") {
    const std::string text(1 << 20, 'x');
    std::string message;
    {
      const FileSizeLimit limit(4096);
      message = message_of<IoError>([&] { replace_file(path, text); });
    }
    CHECK(contains(message, path.string()));
    CHECK(contains(message, "too large"));
    CHECK(text_of(path) == "old");
    CHECK(folder.files() == 1);
  }
  SECTION("more than the disk can take is refused at once") {
    const std::string message =
        message_of<IoError>([&] { ReplacementFile(path, std::uint64_t{1} << 62); });
    CHECK(contains(message, path.string()));
    CHECK(contains(message, "No space left on device"));
    CHECK(text_of(path) == "old");
    CHECK(folder.files() == 1);
  }
  SECTION("permissions stay") {
    ::chmod(path.c_str(), 0640);
    replace_file(path, "new");
    struct stat status {};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0640);
  }
  SECTION("a symbolic link stays a link, and what it points at is replaced") {
    std::filesystem::create_symlink("model", folder / "latest");
    replace_file(folder / "latest", "new");
    CHECK(std::filesystem::is_symlink(folder / "latest"));
    CHECK(text_of(path) == "new");
  }
  SECTION("a link to a file that is not there yet makes that file") {
    std::filesystem::create_symlink("first", folder / "latest");
    replace_file(folder / "latest", "new");
    CHECK(std::filesystem::is_symlink(folder / "latest"));
    CHECK(text_of(folder / "first") == "new");
  }
  SECTION("a name of the greatest length") {
    const auto longest = folder / std::string(255, 'n');
    replace_file(longest, "new");
    CHECK(text_of(longest) == "new");
  }
}

TEST_CASE("platform: writing where it can't be done names the file and the reason", "[files]") {
  const ScratchFolder folder;
  replace_file(folder / "file", "x");
  CHECK(contains(message_of<IoError>([&] { replace_file(folder / "no/such/folder", "x"); }),
                 "No such file"));
  CHECK(contains(message_of<IoError>([&] { replace_file(folder / "file/below", "x"); }),
                 "Not a directory"));
  CHECK(contains(message_of<IoError>([&] { replace_file(folder.path(), "x"); }), "directory"));
  // A device is written to, not replaced.
  if (std::filesystem::exists("/dev/full")) {
    const std::string message = message_of<IoError>([&] { replace_file("/dev/full", "x"); });
    CHECK(contains(message, "/dev/full"));
    CHECK(contains(message, "No space left on device"));
    CHECK(std::filesystem::is_character_file("/dev/full"));
  }
}

TEST_CASE("platform: the machine has a processor, memory and a disk", "[files]") {
  CHECK(usable_cpus() >= 1);
  CHECK(usable_cpus() <= static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  const auto memory = available_memory_bytes();
  REQUIRE(memory);
  CHECK(*memory > 1 << 20);
  const ScratchFolder folder;
  const auto disk = free_disk_bytes(folder.path());
  REQUIRE(disk);
  CHECK(*disk > 0);
  CHECK(free_disk_bytes(folder / "not/yet/there").has_value());
  CHECK(terminal_columns(StandardStream::output, 80) > 0);
}

TEST_CASE("platform: the first signal requests a stop, the second ends the process", "[files]") {
  SECTION("the first") {
    InterruptGuard guard;
    CHECK(guard.signal() == 0);
    CHECK_FALSE(guard.token().stop_requested());
    ::raise(SIGINT);
    const std::stop_token token = guard.token();
    for (int i = 0; i < 500 && !token.stop_requested(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    CHECK(token.stop_requested());
    CHECK(guard.signal() == SIGINT);
    CHECK_THROWS_AS(InterruptGuard(), Error);
  }
  SECTION("a guard leaves no trace") {
    { InterruptGuard guard; }
    InterruptGuard again;
    CHECK(again.signal() == 0);
  }
  SECTION("the second") {
    const pid_t child = ::fork();
    if (child == 0) {
      ::signal(SIGINT, SIG_DFL);  // not that of the test program
      InterruptGuard guard;
      ::raise(SIGTERM);
      ::raise(SIGINT);
      ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGINT);
  }
}
