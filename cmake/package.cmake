# What find_package(fluxion) finds first: it serves whatever was installed, the runtime alone or all libraries. So it says nothing of how this
# build was made: a runtime may be installed beside libraries of another.
include(GNUInstallDirs)
include(cmake/pkg_config.cmake)
include(CMakePackageConfigHelpers)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/fluxion)
configure_package_config_file(cmake/fluxionConfig.cmake.in ${PROJECT_BINARY_DIR}/fluxionConfig.cmake INSTALL_DESTINATION ${package})
# Before 1.0 interfaces change with the minor version.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/fluxionConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/fluxionConfig.cmake ${PROJECT_BINARY_DIR}/fluxionConfigVersion.cmake DESTINATION ${package} COMPONENT runtime)
