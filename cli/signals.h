// What the system sends to the program.
#pragma once

namespace fluxion::cli {

// From here on, and for the rest of the process:
//
// - SIGINT (Ctrl-C), SIGTERM and SIGHUP end it with a line on standard error, without its temporary
//   files, and with the exit code 128 + signal. (Training puts an InterruptGuard before that, which
//   saves first.) One that is ignored, as by nohup, stays ignored.
// - A write to a closed pipe, or beyond the size that a file may have, is an error of that write
//   (SIGPIPE, SIGXFSZ).
// - A standard stream that is closed is one that fails, rather than a name that the next file gets.
// - An exception that nothing can catch, as where memory runs out in a destructor or a thread of
//   another library's, ends it with its message and exit code 1.
//
// The first thing that main does.
void handle_signals();

}  // namespace fluxion::cli
