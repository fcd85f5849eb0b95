# Makes TARGET of TEMPLATE, a file for pkg-config that is installed to pkgconfig/ of the libraries. It finds the other folders from its own, so that
# the prefix may be moved; but for those that were given as absolute paths, which stay where they are.
function(fluxion_pkg_config template target)
  cmake_path(ABSOLUTE_PATH CMAKE_INSTALL_LIBDIR BASE_DIRECTORY ${CMAKE_INSTALL_PREFIX} NORMALIZE OUTPUT_VARIABLE libraries)
  file(RELATIVE_PATH FLUXION_UP ${libraries}/pkgconfig ${CMAKE_INSTALL_PREFIX})
  string(REGEX REPLACE "/$" "" FLUXION_UP ${FLUXION_UP})
  foreach(folder INCLUDEDIR LIBDIR)
    set(FLUXION_${folder} ${CMAKE_INSTALL_${folder}})
    if(NOT IS_ABSOLUTE ${FLUXION_${folder}})
      string(PREPEND FLUXION_${folder} "\${prefix}/")
    endif()
  endforeach()
  configure_file(${template} ${target} @ONLY)
endfunction()
