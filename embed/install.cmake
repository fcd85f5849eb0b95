# Installation of the runtime alone: cmake --install BUILD --component runtime. The prefix may be moved.
include(GNUInstallDirs)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/fluxion)
set(runtime_targets fluxion_runtime)
if(FLUXION_RUNTIME_STATIC)
  list(APPEND runtime_targets fluxion_runtime_static)
endif()
install(TARGETS ${runtime_targets} EXPORT fluxion_runtime
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT runtime
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime
        RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime)
install(EXPORT fluxion_runtime NAMESPACE fluxion:: FILE fluxionRuntimeTargets.cmake DESTINATION ${package} COMPONENT runtime)
install(FILES fluxion.h fluxion.hpp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT runtime)
install(FILES python/fluxion.py DESTINATION ${CMAKE_INSTALL_DATADIR}/fluxion/python COMPONENT runtime)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/docs/embedding.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/examples/embed DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples COMPONENT runtime)

list(TRANSFORM CMAKE_DL_LIBS PREPEND "-l" OUTPUT_VARIABLE FLUXION_DL)
fluxion_pkg_config(fluxion-runtime.pc.in ${PROJECT_BINARY_DIR}/fluxion-runtime.pc)
install(FILES ${PROJECT_BINARY_DIR}/fluxion-runtime.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT runtime)
