#include "backends/vulkan/instance.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "engine/error.h"

namespace fluxion::vulkan_backend {

namespace {

constexpr const char* validation_layer = "VK_LAYER_KHRONOS_validation";

std::vector<std::string> loader_names() {
  if (const char* const path = std::getenv("FLUXION_VULKAN_LIBRARY"); path && *path) return {path};
  return system_loader_names();
}

bool has_extension(const std::vector<VkExtensionProperties>& extensions, const char* name) {
  return std::any_of(extensions.begin(), extensions.end(), [&](const VkExtensionProperties& each) {
    return std::strcmp(each.extensionName, name) == 0;
  });
}

VKAPI_ATTR VkBool32 VKAPI_CALL report(VkDebugUtilsMessageSeverityFlagBitsEXT,
                                      VkDebugUtilsMessageTypeFlagsEXT,
                                      const VkDebugUtilsMessengerCallbackDataEXT* data,
                                      void* user) {
  const auto& message = *static_cast<const std::function<void(std::string_view)>*>(user);
  if (data->pMessage) message(data->pMessage);
  return VK_FALSE;
}

}  // namespace

Instance::Instance(const InstanceOptions& options)
    : library_(std::in_place, loader_names()), message_(options.message) {
  const auto get =
      reinterpret_cast<PFN_vkGetInstanceProcAddr>(library_->find("vkGetInstanceProcAddr"));
  if (!get) throw DeviceError("vulkan: the loader has no function vkGetInstanceProcAddr");
  const auto enumerate_version =
      reinterpret_cast<PFN_vkEnumerateInstanceVersion>(get(nullptr, "vkEnumerateInstanceVersion"));
  const auto enumerate_extensions = reinterpret_cast<PFN_vkEnumerateInstanceExtensionProperties>(
      get(nullptr, "vkEnumerateInstanceExtensionProperties"));
  const auto enumerate_layers = reinterpret_cast<PFN_vkEnumerateInstanceLayerProperties>(
      get(nullptr, "vkEnumerateInstanceLayerProperties"));
  const auto create = reinterpret_cast<PFN_vkCreateInstance>(get(nullptr, "vkCreateInstance"));
  if (!enumerate_version || !enumerate_extensions || !enumerate_layers || !create)
    throw DeviceError("vulkan: the loader is older than Vulkan 1.1");
  std::uint32_t version = VK_API_VERSION_1_0;
  check(enumerate_version(&version), "ask for the loader's version");
  if (version < VK_API_VERSION_1_1)
    throw DeviceError("vulkan: the loader is older than Vulkan 1.1");

  std::uint32_t count = 0;
  check(enumerate_extensions(nullptr, &count, nullptr), "list the loader's extensions");
  std::vector<VkExtensionProperties> extensions(count);
  // VK_INCOMPLETE: one was added meanwhile; those that are there are enough.
  if (const VkResult result = enumerate_extensions(nullptr, &count, extensions.data());
      result != VK_INCOMPLETE)
    check(result, "list the loader's extensions");
  extensions.resize(count);

  std::vector<const char*> enabled, layers;
  auto info = structure<VkInstanceCreateInfo>(VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO);
  // MoltenVK's devices are listed only for those who ask.
  if (has_extension(extensions, VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME)) {
    enabled.push_back(VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME);
    info.flags |= VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR;
  }
  constexpr std::array checks{VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
  auto features = structure<VkValidationFeaturesEXT>(VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT);
  auto messenger = structure<VkDebugUtilsMessengerCreateInfoEXT>(
      VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT);
  const bool validate = options.validate && message_;
  if (validate) {
    std::uint32_t layer_count = 0;
    check(enumerate_layers(&layer_count, nullptr), "list the layers");
    std::vector<VkLayerProperties> available(layer_count);
    check(enumerate_layers(&layer_count, available.data()), "list the layers");
    if (std::none_of(available.begin(), available.end(), [](const VkLayerProperties& each) {
          return std::strcmp(each.layerName, validation_layer) == 0;
        }))
      throw DeviceError(
          "vulkan: the validation layer is not installed "
          "(Debian: vulkan-validationlayers)");
    layers.push_back(validation_layer);
    enabled.push_back(VK_EXT_DEBUG_UTILS_EXTENSION_NAME);
    features.enabledValidationFeatureCount = checks.size();
    features.pEnabledValidationFeatures = checks.data();
    messenger.messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                                VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
    messenger.messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT |
                            VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT;
    messenger.pfnUserCallback = report;
    messenger.pUserData =
        const_cast<std::function<void(std::string_view)>*>(&message_);  // report() only reads it
    features.pNext = &messenger;
    info.pNext = &features;
  }
  auto application = structure<VkApplicationInfo>(VK_STRUCTURE_TYPE_APPLICATION_INFO);
  application.pEngineName = "fluxion";
  api_version_ = std::min<std::uint32_t>(version, VK_API_VERSION_1_3);
  application.apiVersion = api_version_;
  info.pApplicationInfo = &application;
  info.enabledExtensionCount = static_cast<std::uint32_t>(enabled.size());
  info.ppEnabledExtensionNames = enabled.data();
  info.enabledLayerCount = static_cast<std::uint32_t>(layers.size());
  info.ppEnabledLayerNames = layers.data();
  const VkResult created = create(&info, nullptr, &instance_);
  if (created == VK_ERROR_INCOMPATIBLE_DRIVER)
    throw DeviceError("vulkan: no driver is installed, or none can be used");
  check(created, "make an instance");
  call_.DestroyInstance =
      reinterpret_cast<PFN_vkDestroyInstance>(get(instance_, "vkDestroyInstance"));
  try {
    call_ = load_instance(get, instance_);
    if (validate && call_.CreateDebugUtilsMessengerEXT)
      check(call_.CreateDebugUtilsMessengerEXT(instance_, &messenger, nullptr, &messenger_),
            "listen to the validation layer");
    std::uint32_t device_count = 0;
    const VkResult counted = call_.EnumeratePhysicalDevices(instance_, &device_count, nullptr);
    // Some loaders say so when no driver starts.
    if (counted != VK_ERROR_INITIALIZATION_FAILED) check(counted, "list the devices");
    devices_.resize(device_count);
    if (device_count > 0)
      check(call_.EnumeratePhysicalDevices(instance_, &device_count, devices_.data()),
            "list the devices");
    devices_.resize(device_count);
  } catch (...) {
    destroy();
    throw;
  }
}

Instance::Instance(const OwnVulkan& own) : api_version_(own.api_version) {
  const auto require = [](bool holds, const char* what) {
    if (!holds) throw DeviceError("vulkan: of the application's own device, " + std::string(what));
  };
  require(own.get_instance_proc_addr, "get_instance_proc_addr is missing (vkGetInstanceProcAddr)");
  require(own.instance, "instance is missing (a VkInstance)");
  require(own.physical_device, "physical_device is missing (a VkPhysicalDevice)");
  require(own.api_version >= VK_API_VERSION_1_1,
          "api_version is below Vulkan 1.1: it is VkApplicationInfo::apiVersion of the instance, "
          "which must be VK_API_VERSION_1_1 or more");
  call_ = load_instance(reinterpret_cast<PFN_vkGetInstanceProcAddr>(own.get_instance_proc_addr),
                        static_cast<VkInstance>(own.instance));
  devices_.push_back(static_cast<VkPhysicalDevice>(own.physical_device));
}

Instance::~Instance() { destroy(); }

// (instance_ is null for the application's.)
void Instance::destroy() {
  if (messenger_ && call_.DestroyDebugUtilsMessengerEXT)
    call_.DestroyDebugUtilsMessengerEXT(instance_, messenger_, nullptr);
  if (instance_ && call_.DestroyInstance) call_.DestroyInstance(instance_, nullptr);
}

}  // namespace fluxion::vulkan_backend
