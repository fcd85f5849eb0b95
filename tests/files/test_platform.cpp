#include <grp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

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

TEST_CASE("platform: every mapped file is guarded, however many there are", "[files]") {
  const ScratchFolder folder;
  replace_file(folder / "whole", "x");
  const MappedFileGuard guard;
  std::vector<MappedFile> files;
  for (int i = 0; i < 600; ++i) files.emplace_back(folder / "whole");
  constexpr std::size_t bytes = 100000;
  replace_file(folder / "cut", std::string(bytes, 'x'));
  const MappedFile file(folder / "cut");
  std::filesystem::resize_file(folder / "cut", 0);
  CHECK(static_cast<char>(file.bytes()[bytes - 1]) == '\0');
  CHECK(file.cut_short());
  CHECK_FALSE(files.back().cut_short());
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
                 "the folder " + (folder / "no/such").string() + " does not exist"));
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

TEST_CASE("platform: a replaced file gives nobody more than the old one did", "[files]") {
  if (::geteuid() != 0) return;  // only root can play two users
  const ScratchFolder folder;
  constexpr uid_t somebody = 65534;
  constexpr gid_t their_group = 65534, other_group = 12;
  REQUIRE(::chmod(folder.path().c_str(), 0777) == 0);
  struct Case {
    mode_t before, after;
  };
  // One who can't give the new file the old one's group.
  for (const Case& permissions :
       {Case{0600, 0600}, {0640, 0600}, {0644, 0644}, {0604, 0600}, {0660, 0600}, {0664, 0644}}) {
    const auto path = folder / "file";
    replace_file(path, "old");
    REQUIRE(::chown(path.c_str(), somebody, other_group) == 0);
    REQUIRE(::chmod(path.c_str(), permissions.before) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
      if (::setgroups(0, nullptr) != 0 || ::setgid(their_group) != 0 || ::setuid(somebody) != 0)
        ::_exit(3);
      try {
        replace_file(path, "new");
      } catch (...) {
        ::_exit(2);
      }
      ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    REQUIRE(WEXITSTATUS(status) == 0);
    struct stat now {};
    REQUIRE(::stat(path.c_str(), &now) == 0);
    INFO(std::oct << permissions.before << " became " << (now.st_mode & 0777));
    CHECK(text_of(path) == "new");
    CHECK((now.st_mode & 0777) == permissions.after);
  }
  // What is not whole yet is nobody else's either.
  replace_file(folder / "secret", "old");
  ::chmod((folder / "secret").c_str(), 0600);
  ReplacementFile file(folder / "secret");
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    if (entry.path().extension() == ".part") {
      struct stat now {};
      REQUIRE(::stat(entry.path().c_str(), &now) == 0);
      CHECK((now.st_mode & 0777) == 0600);
    }
}

TEST_CASE("platform: a link to nothing leaves nothing where its file is not finished", "[files]") {
  const ScratchFolder folder;
  std::filesystem::create_symlink("first", folder / "latest");
  { ReplacementFile file(folder / "latest"); }
  CHECK_FALSE(std::filesystem::exists(folder / "first"));
  CHECK(std::filesystem::is_symlink(folder / "latest"));
  CHECK(folder.files() == 1);
}

TEST_CASE("platform: a temporary file is abandoned once its process has ended", "[files]") {
  const ScratchFolder folder;
  const auto temporary = [&] {
    for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
      if (entry.path().extension() == ".part") return entry.path();
    return std::filesystem::path();
  };
  {
    ReplacementFile living(folder / "a");
    REQUIRE(!temporary().empty());
    CHECK_FALSE(remove_abandoned_file(temporary()));
    living.write("whole");
    living.commit();
  }
  CHECK(text_of(folder / "a") == "whole");
  const pid_t child = ::fork();
  if (child == 0) {
    new ReplacementFile(folder / "b");  // never finished
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(!temporary().empty());
  CHECK(remove_abandoned_file(temporary()));
  CHECK(temporary().empty());
  CHECK(remove_abandoned_file(folder / "never"));
  REQUIRE(::mkfifo((folder / "pipe.part").c_str(), 0600) == 0);
  CHECK_FALSE(remove_abandoned_file(folder / "pipe.part"));
}

TEST_CASE("platform: a folder has one lock, which ends with its process", "[files]") {
  const ScratchFolder folder;
  const auto place = folder / "run";
  std::filesystem::create_directories(place);
  {
    const FolderLock lock(place);
    CHECK(lock.holds());
    CHECK(lock.effective());
    const std::string message = message_of<IoError>([&] { FolderLock second(place); });
    CHECK(contains(message, place.string()));
    CHECK(contains(message, "process " + std::to_string(::getpid())));
    std::filesystem::remove_all(place);
    CHECK_FALSE(lock.holds());
    std::filesystem::create_directories(place);
    CHECK_NOTHROW(FolderLock(place));
  }
  CHECK(std::filesystem::is_empty(place));
  const pid_t child = ::fork();
  if (child == 0) {
    new FolderLock(place);
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(std::filesystem::exists(place / ".lock"));
  CHECK_NOTHROW(FolderLock(place));
  // What is no lock of ours does not keep anyone waiting.
  REQUIRE(::mkfifo((place / ".lock").c_str(), 0600) == 0);
  CHECK_NOTHROW(FolderLock(place));
  std::filesystem::create_directories(place / ".lock");
  CHECK(contains(message_of<IoError>([&] { FolderLock second(place); }), ".lock"));
  CHECK_THROWS_AS(FolderLock(folder / "nowhere"), IoError);
}

TEST_CASE("platform: memory is bounded by the limits of the process", "[files]") {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  for (const auto resource : {RLIMIT_AS, RLIMIT_DATA}) {
    rlimit before{};
    REQUIRE(::getrlimit(resource, &before) == 0);
    const rlimit limit{rlim_t{1} << 33, before.rlim_max};
    REQUIRE(::setrlimit(resource, &limit) == 0);
    const auto memory = available_memory_bytes();
    ::setrlimit(resource, &before);
    REQUIRE(memory);
    CHECK(*memory < std::uint64_t{1} << 33);
    CHECK(*memory > 0);
  }
#endif
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
