/** Codes of the sidecar's answers: docs/delivery.md, "Errors". */
export type SidecarCode = 'ambiguous_identity' | 'app_failed' | 'bad_fingerprint' | 'bad_request' | 'body_too_large' | 'broken_body' | 'cross_origin' | 'details_pending' | 'identity_unverified' | 'internal_error' | 'invalid_assertion' | 'method_not_allowed' | 'no_details' | 'no_grants' | 'no_identity' | 'no_organization' | 'renewed_recently' | 'signed_out' | 'slow_body' | 'token_malformed' | 'token_pending' | 'token_queued' | 'token_rate_limited' | 'token_refused' | 'token_timeout' | 'token_unavailable' | 'user_mismatch';
/** Codes that this package adds: docs/frontend.md, "Errors". */
export type OwnCode = 'aborted' | 'bad_answer' | 'network' | 'refused' | 'signed_out' | 'superseded' | 'timeout';
/** Codes of a {@link TokenError}; a newer sidecar may send further ones. */
export type TokenErrorCode = SidecarCode | OwnCode | (string & {});
interface Facts {
    status?: number | undefined;
    retryable?: boolean;
    retryAfter?: number | undefined;
    sidecarCode?: string | undefined;
    cause?: unknown;
}
/** Reason why there is no token. Its message never holds a token. */
export declare class TokenError extends Error {
    readonly code: TokenErrorCode;
    /** HTTP status of the answer, if there was one. */
    readonly status?: number;
    /** Whether a retry may succeed without the user or the operator doing something. */
    readonly retryable: boolean;
    /** Milliseconds that the sidecar asks to wait before asking again; a day at most. */
    readonly retryAfter?: number;
    /** Code of the sidecar's answer, if it was the sidecar that answered. */
    readonly sidecarCode?: string;
    constructor(code: TokenErrorCode, facts?: Facts, message?: string);
}
export {};
