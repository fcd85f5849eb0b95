// The training methods: a row each.
#include "models/methods/method.h"

namespace fluxion {

// Each in the file of its name.
using MakeMethod = Method();
MakeMethod flow_matching_method, reflow_method, meanflow_method, imf_method, split_meanflow_method,
    alpha_flow_method, lsd_method, esd_method, psd_method, edm_method, dsm_method, ssm_method,
    rcae_method, dae_method, iadb_method, ct_method, ict_method, ect_method, scm_method, cd_method,
    ffjord_method, rfpp_method;

const MethodTable& built_in_methods() {
  static const MethodTable table = [] {
    MethodTable rows;
    for (MakeMethod* make : {
             &flow_matching_method, &iadb_method,
             &reflow_method,        &meanflow_method,
             &imf_method,           &split_meanflow_method,
             &alpha_flow_method,    &lsd_method,
             &esd_method,           &psd_method,
             &edm_method,           &dsm_method,
             &ssm_method,           &rcae_method,
             &dae_method,           &ct_method,
             &ict_method,           &ect_method,
             &scm_method,           &cd_method,
             &ffjord_method,        &rfpp_method,
         })
      rows = with_method(std::move(rows), make());
    return rows;
  }();
  return table;
}

}  // namespace fluxion
