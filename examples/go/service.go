package main

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"connectrpc.com/connect"

	diffv1 "toolplane.example/diff/gen/examples/diff/v1"
)

type diffService struct{}

func (diffService) CompareTexts(
	_ context.Context,
	request *connect.Request[diffv1.CompareTextsRequest],
) (*connect.Response[diffv1.CompareTextsResponse], error) {
	lines := 3
	if request.Msg.ContextLines != nil {
		lines = int(min(request.Msg.GetContextLines(), maxLines))
	}
	difference, err := differenceOf(request.Msg.GetBefore(), request.Msg.GetAfter(), lines)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&diffv1.CompareTextsResponse{Difference: difference}), nil
}

func (diffService) FollowVersions(
	_ context.Context,
	stream *connect.BidiStream[diffv1.FollowVersionsRequest, diffv1.FollowVersionsResponse],
) error {
	previous := ""
	for {
		version, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		difference, err := differenceOf(previous, version.GetText(), 3)
		if err != nil {
			return err
		}
		if err := stream.Send(&diffv1.FollowVersionsResponse{Name: version.GetName(), Difference: difference}); err != nil {
			return err
		}
		previous = version.GetText()
	}
}

func (diffService) ComputeDigest(
	_ context.Context,
	stream *connect.ClientStream[diffv1.ComputeDigestRequest],
) (*connect.Response[diffv1.ComputeDigestResponse], error) {
	var digest hash.Hash
	var size int64
	for stream.Receive() {
		if digest == nil {
			var err error
			if digest, err = newHash(stream.Msg().GetAlgorithm()); err != nil {
				return nil, err
			}
		}
		digest.Write(stream.Msg().GetData()) // never fails: see hash.Hash
		size += int64(len(stream.Msg().GetData()))
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	if digest == nil {
		digest = sha256.New()
	}
	sum := digest.Sum(nil)
	return connect.NewResponse(&diffv1.ComputeDigestResponse{Digest: sum, Hex: hex.EncodeToString(sum), Size: size}), nil
}

func newHash(algorithm diffv1.Algorithm) (hash.Hash, error) {
	switch algorithm {
	case diffv1.Algorithm_ALGORITHM_UNSPECIFIED, diffv1.Algorithm_ALGORITHM_SHA256:
		return sha256.New(), nil
	case diffv1.Algorithm_ALGORITHM_SHA512:
		return sha512.New(), nil
	default:
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("algorithm %d is not known", algorithm))
	}
}

func differenceOf(before, after string, context int) (*diffv1.Difference, error) {
	old, new := linesOf(before), linesOf(after)
	if len(old) > maxLines || len(new) > maxLines {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("a text may have at most %d lines", maxLines))
	}
	edits := compare(old, new)
	kept := len(old) + len(new) - len(edits)
	similarity := 1.0
	if total := len(old) + len(new); total > 0 {
		similarity = 2 * float64(kept) / float64(total)
	}
	return &diffv1.Difference{
		Added:      int64(len(new) - kept),
		Removed:    int64(len(old) - kept),
		Similarity: similarity,
		Unified:    unified(edits, context),
	}, nil
}
