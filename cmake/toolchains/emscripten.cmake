# WebAssembly with Debian's emscripten: one thread, vectors of 128 bits, exceptions. Programs run here in node.
find_program(EMCC emcc REQUIRED)
# (Debian's emcc is a link into the folder of everything else.)
file(REAL_PATH ${EMCC} emscripten)
cmake_path(GET emscripten PARENT_PATH emscripten)
include(${emscripten}/cmake/Modules/Platform/Emscripten.cmake)
# (Its own scripts want modules of node that Debian keeps in /usr/share/nodejs: a node of another origin needs NODE_PATH, as the preset sets it.)
# Our errors are exceptions, which this compiler leaves out unless it is asked, when compiling and when linking: those of WebAssembly itself, which
# whatever has its vectors has, too. (With -fexceptions each call that may throw goes through JavaScript: a third more bytes.)
set(CMAKE_CXX_FLAGS_INIT "-fwasm-exceptions -msimd128")
