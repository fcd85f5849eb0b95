# An interface library NAME with the headers PROBE and whatever lies in the FOLDERS beside it, of a library that consists of headers alone or
# is opened at run time; REMEDY is what to do where there are none. They are the same for every processor, so a build for another system uses
# those of this one - through links to just these folders, since a cross compiler must not see what else is there: the headers of this machine's
# own system.
function(fluxion_headers name probe remedy)
  find_path(FLUXION_${name}_HEADERS ${probe} PATHS /usr/include /usr/local/include NO_CMAKE_FIND_ROOT_PATH DOC "The folder that holds ${probe}")
  if(NOT FLUXION_${name}_HEADERS)
    message(FATAL_ERROR "There is no ${probe}: ${remedy}. If it is in a folder of its own: -DFLUXION_${name}_HEADERS=FOLDER")
  endif()
  set(place ${FLUXION_${name}_HEADERS})
  if(CMAKE_CROSSCOMPILING)
    file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/headers)
    foreach(folder ${ARGN})
      file(CREATE_LINK ${place}/${folder} ${PROJECT_BINARY_DIR}/headers/${folder} SYMBOLIC)
    endforeach()
    set(place ${PROJECT_BINARY_DIR}/headers)
  endif()
  add_library(${name} INTERFACE)
  target_include_directories(${name} SYSTEM INTERFACE ${place})
endfunction()
