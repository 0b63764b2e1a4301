// Uses a Toolplane server with stubs that protoc-gen-connect-go generated, over the protocol given, and prints what it
// saw as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/structpb"

	rpcv1 "toolplane.example/client/gen/google/rpc"
	registryv1 "toolplane.example/client/gen/toolplane/registry/v1"
	"toolplane.example/client/gen/toolplane/registry/v1/registryv1connect"
	toolsv1 "toolplane.example/client/gen/toolplane/tools/v1"
	"toolplane.example/client/gen/toolplane/tools/v1/toolsv1connect"
)

type seen struct {
	Services []string       `json:"services"`
	Hits     []string       `json:"hits"`
	Result   any            `json:"result"`
	Events   []string       `json:"events"`
	Watched  []string       `json:"watched"`
	Error    map[string]any `json:"error"`
}

func main() {
	url, tool, protocol, httpVersion := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	options := map[string][]connect.ClientOption{
		"connect":      nil,
		"connect-json": {connect.WithProtoJSON(), connect.WithHTTPGet()},
		"grpc":         {connect.WithGRPC()},
		"grpcweb":      {connect.WithGRPCWeb()},
	}[protocol]
	client := httpClient(httpVersion)
	result, err := use(
		ctx,
		registryv1connect.NewRegistryServiceClient(client, url, options...),
		toolsv1connect.NewToolServiceClient(client, url, options...),
		tool,
	)
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		log.Fatal(err)
	}
}

func httpClient(version string) *http.Client {
	protocols := new(http.Protocols)
	if version == "2" {
		protocols.SetUnencryptedHTTP2(true)
	} else {
		protocols.SetHTTP1(true)
	}
	return &http.Client{Transport: &http.Transport{Protocols: protocols}}
}

func use(
	ctx context.Context,
	registry registryv1connect.RegistryServiceClient,
	tools toolsv1connect.ToolServiceClient,
	tool string,
) (*seen, error) {
	var result seen
	services, err := registry.ListServices(ctx, connect.NewRequest(&registryv1.ListServicesRequest{}))
	if err != nil {
		return nil, err
	}
	for _, service := range services.Msg.GetServices() {
		result.Services = append(result.Services, service.GetName())
	}
	hits, err := registry.SearchTools(ctx, connect.NewRequest(&registryv1.SearchToolsRequest{Query: "readability"}))
	if err != nil {
		return nil, err
	}
	for _, hit := range hits.Msg.GetHits() {
		result.Hits = append(result.Hits, hit.GetTool().GetName())
	}
	arguments, err := structpb.NewStruct(map[string]any{"text": "One short sentence. And one more.", "top_words": 2})
	if err != nil {
		return nil, err
	}
	call := &toolsv1.ToolCall{Tool: tool, Input: &toolsv1.ToolCall_Arguments{Arguments: arguments}}
	answer, err := tools.CallTool(ctx, connect.NewRequest(&toolsv1.CallToolRequest{Call: call}))
	if err != nil {
		return nil, err
	}
	result.Result = answer.Msg.GetResult().GetJson().AsInterface()
	events, err := tools.CallToolStream(ctx, connect.NewRequest(&toolsv1.CallToolStreamRequest{Call: call}))
	if err != nil {
		return nil, err
	}
	for events.Receive() {
		switch events.Msg().GetEvent().(type) {
		case *toolsv1.CallToolStreamResponse_Started:
			result.Events = append(result.Events, "started")
		case *toolsv1.CallToolStreamResponse_Result:
			result.Events = append(result.Events, "result")
		case *toolsv1.CallToolStreamResponse_Finished:
			result.Events = append(result.Events, "finished")
		}
	}
	if err := events.Err(); err != nil {
		return nil, err
	}
	if result.Watched, err = watch(ctx, registry); err != nil {
		return nil, err
	}
	result.Error, err = notFound(ctx, registry)
	return &result, err
}

// watch returns the services that a watch begins with. It ends by leaving, as nothing else ends a watch.
func watch(ctx context.Context, registry registryv1connect.RegistryServiceClient) ([]string, error) {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	stream, err := registry.WatchServices(ctx, connect.NewRequest(&registryv1.WatchServicesRequest{}))
	if err != nil {
		return nil, err
	}
	var names []string
	for stream.Receive() {
		if stream.Msg().GetSynced() != nil {
			return names, nil
		}
		names = append(names, stream.Msg().GetUpdated().GetName())
	}
	return nil, fmt.Errorf("the watch ended: %w", stream.Err())
}

func notFound(ctx context.Context, registry registryv1connect.RegistryServiceClient) (map[string]any, error) {
	_, err := registry.GetTool(ctx, connect.NewRequest(&registryv1.GetToolRequest{Name: "nowhere.Nothing"}))
	var failure *connect.Error
	if !errors.As(err, &failure) {
		return nil, fmt.Errorf("expected an error, got %w", err)
	}
	for _, detail := range failure.Details() {
		value, err := detail.Value()
		if err != nil {
			return nil, err
		}
		if info, ok := value.(*rpcv1.ErrorInfo); ok {
			return map[string]any{"code": failure.Code().String(), "reason": info.GetReason(), "domain": info.GetDomain()}, nil
		}
	}
	return nil, errors.New("the error says no reason")
}
