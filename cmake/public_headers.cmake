# The public headers, as those who use the libraries include them: <fluxion/engine/graph/tensor.h>. In the source they include each other as
# "engine/graph/tensor.h", which in an application with an engine/ of its own would find that; the copies written here name each other with
# the prefix too.

# Private are the planner and its pictures, the kernels, and what only the engine's own rules need.
function(fluxion_public_headers result)
  set(folders engine models)
  if(FLUXION_AUTOGRAD)
    list(APPEND folders autograd)
  endif()
  set(headers engine/graph/ops.def)
  foreach(folder ${folders})
    file(GLOB_RECURSE found RELATIVE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/${folder}/*.h)
    list(APPEND headers ${found})
  endforeach()
  list(FILTER headers EXCLUDE REGEX "^engine/(plan|show)/|^autograd/(rules|batching)\\.h$")
  list(FILTER headers EXCLUDE REGEX "/(walk|shape_rules|plan_cache|verify_parts|system_windows)\\.h$")
  if(NOT FLUXION_AUTOGRAD)
    list(FILTER headers EXCLUDE REGEX "^models/(objectives|likelihood|diagnostics|methods|training|benchmark|optimisers)/")
  endif()
  # Of the planner, the graph that engine/export stores.
  list(APPEND headers engine/plan/graph.h engine/plan/id.h backends/open_device.h backends/cpu/cpu.h backends/reference/reference.h)
  if(FLUXION_VULKAN)
    list(APPEND headers backends/vulkan/vulkan.h backends/vulkan/sharing.h)
  endif()
  set(${result} ${headers} PARENT_SCOPE)
endfunction()

# Writes them from SOURCE into FOLDER/fluxion.
function(fluxion_write_headers source folder)
  foreach(header ${ARGN})
    file(READ ${source}/${header} text)
    string(REGEX REPLACE "#include \"((engine|autograd|backends|models)/[^\"]*)\"" "#include <fluxion/\\1>" text "${text}")
    set(before "")
    if(EXISTS ${folder}/fluxion/${header})
      file(READ ${folder}/fluxion/${header} before)
    endif()
    if(NOT text STREQUAL before)
      file(WRITE ${folder}/fluxion/${header} "${text}")
    endif()
  endforeach()
endfunction()
