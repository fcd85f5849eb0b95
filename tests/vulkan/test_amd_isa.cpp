// What is read out of machine code (tests/vulkan/amd).
#include "tests/catch.h"
#include "tests/vulkan/amd/isa.h"

using namespace fluxion::amd;

TEST_CASE("machine code: the inner loop with most multiply-adds is the one that counts",
          "[vulkan][amd]") {
  const CodeReport report = read_isa(R"(BB0:
	v_fmac_f32_e32 v0, v1, v2                                   ; 56000501
	s_mov_b32 s0, 0                                             ; be800080
BB1:
	s_cmpk_ge_u32 s0, 0x64                                      ; b5800064
	s_cbranch_scc1 BB5                                          ; bf850015
BB2:
	v_pk_fma_f16 v0, v1, v2, v0                                 ; 00000000
	v_fma_f32 v0, v1, v2, v0                                    ; 00000000
	v_mul_f32_e32 v0, v1, v2                                    ; 00000000
	s_cbranch_scc0 BB2                                          ; 00000000
BB3:
	v_mac_f32_e32 v0, v1, v2                                    ; 00000000
	s_branch BB1                                                ; bf82ffe9
BB5:
	s_endpgm                                                    ; bf810000
)");
  CHECK(report.instructions == 11);
  CHECK(report.loops);
  CHECK(report.loop_instructions == 4);
  CHECK(report.loop_multiply_adds == 2);
  CHECK(report.multiply_add_share() == 0.5);
}

TEST_CASE("machine code without a loop counts as a whole", "[vulkan][amd]") {
  const CodeReport report =
      read_isa("BB0:\n\tv_mad_u32_u24 v0, s3, 64, v0\n\tv_mad_f32 v0, v1, v2, v3\n");
  CHECK_FALSE(report.loops);
  CHECK(report.loop_instructions == 2);
  CHECK(report.loop_multiply_adds == 1);
  CHECK(read_isa("").multiply_add_share() == 0);
}

TEST_CASE("machine code: memory accesses by their width, under both spellings", "[vulkan][amd]") {
  const CodeReport report = read_isa(R"(BB0:
	buffer_load_dwordx4 v[4:7], v1, s[4:7], 0 offen             ; e05c1000 80010401
	buffer_load_b128 v[8:11], v5, s[8:11], 0 offen              ; e05c0000 80420805
	buffer_load_ushort v0, v1, s[4:7], 0 offen                  ; 00000000
	buffer_load_short_d16_hi v0, v1, s[4:7], 0 offen            ; 00000000
	buffer_load_u8 v0, v1, s[4:7], 0 offen                      ; 00000000
	buffer_load_dword v0, v1, s[4:7], 0 offen                   ; 00000000
	s_buffer_load_dwordx4 s[4:7], s[4:7], s1                    ; c0280102 00000001
	buffer_store_dwordx2 v[5:6], v0, s[0:3], 0 offen            ; 00000000
	buffer_store_b96 v[5:7], v0, s[0:3], 0 offen                ; 00000000
	ds_read2_b32 v[0:1], v2 offset1:1                           ; 00000000
	ds_load_b128 v[0:3], v2                                     ; 00000000
	ds_write_b64 v2, v[0:1]                                     ; 00000000
	scratch_load_dword v0, off, s0                              ; 00000000
	s_barrier                                                   ; bf8a0000
	s_waitcnt vmcnt(0)                                          ; bf8c3f70
)");
  using Widths = std::array<std::int64_t, 6>;  // 1, 2, 4, 8, 12, 16
  CHECK(report.loads.by_width == Widths{1, 2, 1, 0, 0, 2});
  CHECK(report.loads.bytes() == 41);
  CHECK(report.loads.widest_share() == 32.0 / 41);
  CHECK(report.stores.by_width == Widths{0, 0, 0, 1, 1, 0});
  CHECK(report.stores.widest_share() == 0);
  CHECK(report.shared_loads.by_width == Widths{0, 0, 2, 0, 0, 1});
  CHECK(report.shared_stores.by_width == Widths{0, 0, 0, 1, 0, 0});
  CHECK(report.scalar_loads == 1);
  CHECK(report.scratch_accesses == 1);
  CHECK(report.barriers == 1);
  CHECK(report.waits == 1);
}
