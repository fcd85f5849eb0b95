# Installation: the program, the libraries, the public headers, and what CMake (find_package) and pkg-config need to find them. The prefix may be moved.
include(GNUInstallDirs)

# Public headers name JSON types.
find_package(nlohmann_json REQUIRED)
target_link_libraries(fluxion_models PUBLIC nlohmann_json::nlohmann_json)

# Dependants first, as a linker wants static libraries.
set(libraries fluxion_models)
if(FLUXION_AUTOGRAD)
  list(APPEND libraries fluxion_autograd)
endif()
list(APPEND libraries fluxion_devices fluxion_cpu fluxion_reference)
if(FLUXION_VULKAN)
  list(APPEND libraries fluxion_vulkan)
endif()
list(APPEND libraries fluxion_engine)

# fluxion::fluxion is everything there is; fluxion::inference what samples a model. (`fluxion` itself is the program.)
add_library(fluxion_everything INTERFACE)
target_link_libraries(fluxion_everything INTERFACE ${libraries})
add_library(fluxion_inference INTERFACE)
target_link_libraries(fluxion_inference INTERFACE fluxion_models fluxion_cpu fluxion_engine)

set_target_properties(fluxion_everything PROPERTIES EXPORT_NAME fluxion)
foreach(target IN LISTS libraries ITEMS fluxion_inference fluxion_flags)
  string(REPLACE fluxion_ "" name ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
endforeach()

target_include_directories(fluxion_flags INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

install(TARGETS ${libraries} fluxion_everything fluxion_inference fluxion_flags EXPORT fluxion ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS fluxion RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})

include(cmake/public_headers.cmake)
fluxion_public_headers(headers)
install(CODE "file(REMOVE_RECURSE \"${PROJECT_BINARY_DIR}/include/fluxion\")
include(\"${PROJECT_SOURCE_DIR}/cmake/public_headers.cmake\")
fluxion_write_headers(\"${PROJECT_SOURCE_DIR}\" \"${PROJECT_BINARY_DIR}/include\" ${headers})")
install(DIRECTORY ${PROJECT_BINARY_DIR}/include/fluxion DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/fluxion)
install(EXPORT fluxion NAMESPACE fluxion:: FILE fluxionTargets.cmake DESTINATION ${package})
configure_file(cmake/fluxionLibraries.cmake.in ${PROJECT_BINARY_DIR}/fluxionLibraries.cmake @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/fluxionLibraries.cmake DESTINATION ${package})

list(TRANSFORM libraries PREPEND "-l" OUTPUT_VARIABLE FLUXION_LINK)
list(JOIN FLUXION_LINK " " FLUXION_LINK)
if(FLUXION_VULKAN)
  string(APPEND FLUXION_LINK " -ldl")
endif()
set(FLUXION_REQUIRES "libjpeg zlib")
if(NOT FLUXION_HIGHWAY_HEADERS)
  string(PREPEND FLUXION_REQUIRES "libhwy ")
endif()
if(FLUXION_TBB)
  string(APPEND FLUXION_REQUIRES " tbb")
endif()
fluxion_pkg_config(cmake/fluxion.pc.in ${PROJECT_BINARY_DIR}/fluxion.pc)
install(FILES ${PROJECT_BINARY_DIR}/fluxion.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY examples/outside DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
