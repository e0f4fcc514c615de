"""What the target promises of RFC 7143, section by section, and the tests that hold it to that.

docs/iscsi.md prints these rows; ``test_promises`` sees that the tests are there. What an
initiator must not do, and what comes of it, stands in ``mistakes``.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Promise:
    """One thing we do; ``tests`` are ``file::function`` below ``tests``."""

    section: str
    promise: str
    tests: tuple[str, ...]


PROMISES = (
    Promise(
        "4.2.2.1",
        "Commands run in the order of CmdSN, whatever order they come in. The window is open for "
        "128 commands, counts those under way, and every PDU of ours tells it.",
        (
            "iscsi/test_engine.py::test_early_commands_wait_for_the_missing_one",
            "iscsi/test_session.py::test_the_window_counts_tasks_that_are_under_way",
            "interop/test_sockets_iscsi.py::test_a_cmdsn_outside_the_window_is_ignored",
        ),
    ),
    Promise(
        "4.2.2.2",
        "StatSN goes up by one with every PDU that has a status or an answer, and R2T and Data-In "
        "without status carry the next. ExpStatSN is not policed: iPXE takes it from any PDU.",
        (
            "iscsi/test_answers.py::test_an_r2t_has_the_next_stat_sn_and_takes_none",
            "interop/test_tshark_iscsi.py::test_status_numbers_go_up_by_one",
        ),
    ),
    Promise(
        "4.2.3",
        "Task management ends the tasks that it is to end, of all sessions where it is to, and "
        "none of them is answered afterwards. We answer at once: data that is on its way for such "
        "a task is ignored when it comes, where the section has us wait for it first. Commands "
        "that were sent before, and wait behind a gap, end too.",
        (
            "iscsi/test_session.py::test_what_a_gap_keeps_waiting_ends_with_the_others",
            "iscsi/test_management.py::test_abort_task_set_is_mine_only",
            "iscsi/test_management.py::test_tasks_whose_status_waits_for_data_end_too",
            "iscsi/test_server.py::test_an_aborted_write_takes_no_more_data",
            "interop/test_sockets_iscsi.py::"
            "test_a_reset_ends_tasks_of_all_sessions_and_none_is_answered",
        ),
    ),
    Promise(
        "4.2.5.2",
        "Write data comes with the command, after it unasked, or for an R2T, in every mixture "
        "that the login agreed on; each byte is taken once.",
        (
            "iscsi/test_transfer.py::test_every_mixture_brings_all_data_once_and_in_order",
            "iscsi/test_transfer.py::test_ipxe_one_r2t_and_pdus_of_512",
        ),
    ),
    Promise(
        "4.3",
        "A discovery session is told of the initiator's own target, on every portal.",
        (
            "iscsi/test_portal.py::test_discovery_on_the_same_portal",
            "iscsi/test_text.py::test_discovery_of_another_shows_nothing",
        ),
    ),
    Promise(
        "4.4.1, 4.4.3",
        "Every portal leads to the target; SendTargets names all with their tags, a login answers "
        "the tag of its own, and the tag is part of the nexus.",
        (
            "iscsi/test_portal.py::test_every_portal_leads_to_the_disk_and_names_its_group",
            "iscsi/test_portal.py::test_reinstatement_is_within_a_portal_group",
            "interop/test_libiscsi_portals.py::test_iscsi_ls_finds_both_portals_at_either",
        ),
    ),
    Promise(
        "6.3.5",
        "The same name and ISID log in again: the old session's tasks end first.",
        ("iscsi/test_portal.py::test_reinstatement_ends_the_old_session_before_the_new_begins",),
    ),
    Promise(
        "7.3",
        "The CmdSN of a rejected request was not received: it is expected still.",
        (
            "iscsi/test_engine.py::test_a_tag_that_is_in_use",
            "iscsi/test_session.py::test_a_command_that_was_not_taken_gives_its_number_back",
        ),
    ),
    Promise(
        "7.7, 7.8",
        "Recovery level 0: a format error or a digest that does not match ends the connection, "
        "and that only.",
        (
            "iscsi/test_engine.py::test_one_wrong_bit_ends_the_connection",
            "iscsi/test_portal.py::test_garbage_ends_its_own_connection_only",
        ),
    ),
    Promise(
        "11.4.2",
        "No status overtakes write data that is under way.",
        (
            "iscsi/test_transfer.py::test_a_status_waits_for_the_last_data_out_of_an_r2t",
            "iscsi/test_transfer.py::test_a_status_waits_for_unsolicited_data",
            "iscsi/test_server.py::test_a_fault_in_the_middle_of_a_long_write",
        ),
    ),
    Promise(
        "11.4.5",
        "Residuals are exact, over and under, for data and for status alone.",
        (
            "iscsi/test_answers.py::test_residuals_of_data",
            "iscsi/test_answers.py::test_residuals_of_a_status",
            "iscsi/test_server.py::test_writes_whose_lengths_do_not_agree",
        ),
    ),
    Promise(
        "11.5.1",
        "ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, TARGET WARM RESET and "
        "TARGET COLD RESET, which ends every session of the target. Who lost a task to somebody "
        "else, or a reset, is told by a unit attention, and nobody else is.",
        (
            "iscsi/test_management.py::test_clear_task_set_is_everybodys_and_they_are_told",
            "interop/test_sockets_iscsi.py::test_attentions_go_to_the_right_sessions",
            "interop/test_sockets_iscsi.py::test_a_cold_reset_ends_all_sessions",
        ),
    ),
    Promise(
        "11.6.1",
        "ABORT TASK of a command that has not come answers for it, and the command is ignored "
        "when it comes.",
        (
            "iscsi/test_session.py::test_a_command_is_aborted_before_it_comes",
            "iscsi/test_management.py::test_a_task_that_never_came",
        ),
    ),
    Promise(
        "11.9.1",
        "Before a planned stop operating systems are asked to log out, and nobody else is: iPXE "
        "and EDK2 drop the session over a message that they did not ask for.",
        (
            "iscsi/test_portal.py::test_a_planned_stop_asks_operating_systems_to_log_out",
            "iscsi/test_portal.py::test_who_does_not_log_out_is_not_waited_for_long",
            "interop/test_libiscsi_portals.py::"
            "test_libiscsi_logs_out_when_it_is_asked_and_comes_back",
            "test_disk_process.py::test_who_may_be_asked_to_log_out",
        ),
    ),
    Promise(
        "11.10, 11.11",
        "SendTargets is answered in full-feature phase too; text goes over several PDUs both "
        "ways; F answers F only.",
        (
            "interop/test_sockets_iscsi.py::test_targets_are_told_in_a_normal_session_too",
            "iscsi/test_text.py::test_a_request_over_three_pdus",
            "iscsi/test_text.py::test_an_answer_over_several_pdus",
            "iscsi/test_text.py::test_f_answers_f_only",
        ),
    ),
    Promise(
        "11.13.5, 13.8",
        "A redirect (0101) is the first answer, before any proof, with an address and a port and "
        "no tag. Who comes beyond the limits, or while we stop, hears 0302.",
        (
            "iscsi/test_portal.py::test_a_redirect_is_the_first_answer",
            "iscsi/test_login.py::test_a_redirect_comes_before_any_proof",
            "iscsi/test_portal.py::test_nobody_throws_out_another",
            "interop/test_libiscsi_portals.py::test_a_drained_server_sends_libiscsi_to_another",
        ),
    ),
    Promise(
        "11.18",
        "A ping is answered with its data, before any task that is under way.",
        ("iscsi/test_engine.py::test_a_ping_is_answered_although_tasks_are_pending",),
    ),
    Promise(
        "11.19",
        "We never ping: iPXE and EDK2 do not answer. TCP finds out who is gone.",
        ("iscsi/test_portal.py::test_a_dead_session_of_the_same_name_is_found_by_tcp",),
    ),
    Promise(
        "SAM-5 8",
        "ORDERED and HEAD OF QUEUE tasks keep their order among those of all sessions.",
        (
            "iscsi/test_taskset.py::test_order_holds_whatever_comes",
            "iscsi/test_server.py::test_an_ordered_task_waits_for_the_cold_read_before_it",
        ),
    ),
)
