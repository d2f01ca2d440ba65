// Made by `npm run pages` from client/src. Change it there.
/**
 * The state of one session, as one viewer sees it: a reducer from actions to states.
 *
 * Pure: no socket, clock or randomness. It ignores unknown frames and keys, so an older client works with a newer
 * gateway. Unchanged parts of the state keep their identity.
 */
import { acknowledge, addPending, dropPending, emptyChat, failPending, foldEvents, foldNewest, foldOlder, holdWindow, } from "./chat.js";
import { advance, isForgotten, place, UNPLACED } from "./continuity.js";
import { confirmVote, foldMine, foldSnapshot, foldTally, foldVotingEvent, forgetVotes, refuseVote, wishVote, } from "./votings.js";
const NOTHING = [];
/** The state before the first action. */
export const INITIAL_STATE = {
    status: "connecting",
    error: null,
    info: null,
    can: { send: false, vote: false, moderate: false },
    viewers: null,
    votings: [],
    chat: emptyChat(),
    continuity: UNPLACED,
    isLoaded: false,
    head: 0,
    isResumed: false,
    latest: NOTHING,
    sub: undefined,
};
/** Returns the state after one action. */
export function reduce(state, action) {
    switch (action.type) {
        case "frame":
            return onFrame(state, action.frame);
        case "connecting":
            return { ...state, status: state.continuity.seq === null ? "connecting" : "waiting", error: null };
        case "lost":
            return { ...state, status: "waiting" };
        case "stopped":
            return { ...state, status: "stopped", error: action.error };
        case "identified":
            return onIdentified(state, action.sub);
        case "send":
            return { ...state, chat: addPending(state.chat, action.message) };
        case "sent":
            return { ...state, chat: acknowledge(state.chat, action.nonce, { ...action, seen: state.continuity.seq }) };
        case "send_failed":
            return { ...state, chat: failPending(state.chat, action.nonce, action.error) };
        case "discard":
            return { ...state, chat: dropPending(state.chat, action.nonce) };
        case "vote":
            return { ...state, votings: wishVote(state.votings, action.voting, action.movie) };
        case "voted":
            return { ...state, votings: confirmVote(state.votings, action.voting, action.movie) };
        case "vote_failed":
            return { ...state, votings: refuseVote(state.votings, action.voting, action.movie) };
        case "older":
            return { ...state, chat: foldOlder(state.chat, action.page) };
        case "newest":
            return { ...state, chat: foldNewest(state.chat) };
        case "read_back":
            return { ...state, chat: holdWindow(state.chat) };
        case "stale_frame":
            return { ...state, continuity: { ...state.continuity, stale: state.continuity.stale + 1 } };
    }
}
function onFrame(state, frame) {
    switch (frame.type) {
        case "subscribed":
        case "reset":
            return onStart(state, frame);
        case "events":
            return onEvents(state, frame.events);
        case "tally": {
            const votings = foldTally(state.votings, frame);
            return votings === state.votings ? state : { ...state, votings };
        }
        case "viewers":
            return { ...state, viewers: frame.count };
        case "mine":
            return { ...state, votings: foldMine(state.votings, frame.voting, frame.movie) };
        case "access":
            return { ...state, can: { ...state.can, ...frame.can } };
        default:
            return state;
    }
}
function onStart(state, frame) {
    const head = frame.head ?? frame.seq;
    const isFirst = state.continuity.seq === null;
    const isOther = isFirst || isForgotten(state.continuity, frame);
    // Drops committed messages: their log events may lie before the new starting point and never arrive.
    const pending = state.chat.pending.filter((item) => item.status !== "sent");
    const continuity = place(state.continuity, frame);
    const isLevel = (continuity.seq ?? 0) >= head;
    // A list that is scrolled up stays scrolled up and keeps its count of new messages.
    const { isHeld, arrived } = state.chat;
    return {
        ...state,
        status: isLevel ? "live" : "catching_up",
        error: null,
        isLoaded: isLevel || (state.isLoaded && !isOther),
        head,
        isResumed: frame.type === "subscribed" && frame.recovered && !isFirst,
        info: frame.info ?? state.info,
        can: frame.can ?? state.can,
        viewers: (frame.type === "subscribed" ? frame.viewers : undefined) ?? state.viewers,
        votings: frame.votings ? foldSnapshot(state.votings, frame.votings) : state.votings,
        chat: isOther ? { ...emptyChat(frame.seq, pending), isHeld, arrived } : state.chat,
        continuity,
    };
}
function onEvents(state, events) {
    const { position, fresh } = advance(state.continuity, events);
    let { info, votings } = state;
    for (const event of fresh) {
        votings = foldVotingEvent(votings, event);
        if (event.type === "session.updated" && info !== null)
            info = updated(info, event.data);
    }
    const isLevel = state.status === "catching_up" && (position.seq ?? 0) >= state.head;
    return {
        ...state,
        status: isLevel ? "live" : state.status,
        isLoaded: isLevel || state.isLoaded,
        info,
        votings,
        chat: foldEvents(state.chat, fresh),
        continuity: position,
        latest: fresh,
    };
}
/** Copies only the columns that `SessionInfo` already has: the row has more. */
function updated(info, row) {
    const known = Object.entries(row).filter(([key]) => key in info);
    return { ...info, ...Object.fromEntries(known) };
}
/** Stores the viewer's identity. Another user keeps the position in the log, but not the votes and pending messages. */
function onIdentified(state, sub) {
    if (state.sub === undefined || state.sub === sub)
        return { ...state, sub };
    return {
        ...state,
        sub,
        votings: forgetVotes(state.votings),
        chat: { ...state.chat, pending: [] },
    };
}
